"""The input probe: can the input token still be read from the residual stream?

It has a linear map for each residual point, from the stream to the embedding of the input token,
fitted in closed form, and one map for all points together. A comment on the post asks for it: fit a
linear model that recovers the input, and see whether that gets harder at higher layers.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from .._files import load_tensors, narrowed, restored, save_tensors, widened
from ..model.argument_types import require_whole_numbers
from ..model.embedding import embedding
from ..model.exclusive import exclusive
from ..model.points import select_points
from ..model.precision import as_double, at_least_float32
from ..model.same_weights import weights_mismatch
from ..model.tokens import TextOrTokens
from .corpus_moments import corpus_moments
from .ridge import RidgeMoments

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class InputProbe:
    """`P_l(r) = (r / rms(r)) W_l + b_l`, an estimate of the input token's embedding.

    The stream is scaled to unit root mean square, as the model's own blocks see it, so one map can
    serve points with residuals of different sizes.

    Attributes:
        points: labels of the residual points, the input included.
        weight: `[point, d_model, d_model]`.
        bias: `[point, d_model]`.
        shared_weight: `[d_model, d_model]`, of the one map for all points except the input.
        shared_bias: `[d_model]`.
        counts: `[d_vocab]`, how often each token was fitted to.
        fingerprint: hash of the weights that the probe was fitted for; it is refused on others,
            and used with a warning on the same weights in another dtype.
        settings: model, corpus hash and options of the fit.
    """

    points: tuple[str, ...]
    weight: Float[Tensor, "point d_model d_model"] = field(repr=False)
    bias: Float[Tensor, "point d_model"] = field(repr=False)
    shared_weight: Float[Tensor, "d_model d_model"] = field(repr=False)
    shared_bias: Float[Tensor, " d_model"] = field(repr=False)
    counts: Int[Tensor, " d_vocab"] = field(repr=False)
    fingerprint: str
    settings: Mapping[str, Any]

    def __call__(
        self, residual: Float[Tensor, "*row d_model"], point: str, *, shared: bool = False
    ) -> Float[Tensor, "*row d_model"]:
        """The estimate from residuals at a point, by the point's own map or by the shared one.

        Raises `ValueError` if the probe has no map at the point.
        """
        if point not in self.points:
            raise ValueError(f"the probe has no map at {point!r}; its points are {self.points}")
        index = self.points.index(point)
        weight = self.shared_weight if shared else self.weight[index]
        bias = self.shared_bias if shared else self.bias[index]
        return unit_size(residual) @ weight.to(residual) + bias.to(residual)

    def require_fits(self, bridge: TransformerBridge) -> None:
        """Raise `ValueError` if the probe was not fitted for this bridge's weights."""
        other = weights_mismatch(
            bridge, self.fingerprint, "probe", self.settings, "fit one with fit_input_probe"
        )
        if other is not None:
            raise ValueError(
                f"this probe was fitted for {self.settings.get('model')} with weights "
                f"{self.fingerprint}, the bridge is {bridge.cfg.model_name} with {other}"
            )

    def overlap(self, bridge: TransformerBridge, *, k: int = 64) -> "pandas.DataFrame":
        """Principal angles between the directions that the maps read and those of the embeddings.

        For each point, and for the shared map as "all", these are the angles between the `k`
        leading input directions of the map (left singular vectors of `W`) and the `k` leading
        principal directions of the embedding matrix.

        **Returns:** one row per point: `smallest` and `median` angle in degrees, `overlap`, the
        mean squared cosine, and `chance`, the overlap expected of random directions, k / d_model.

        Raises `ValueError` if `k` is not between 1 and d_model, or if the probe was not fitted for
        this bridge's weights.
        """
        import pandas

        self.require_fits(bridge)
        require_whole_numbers(k=k)
        if not 1 <= k <= bridge.W_E.shape[1]:
            raise ValueError(f"k must be between 1 and d_model = {bridge.W_E.shape[1]}, got {k}")
        table = as_double(bridge.W_E.detach())
        centred = table - table.mean(0)
        # Eigenvalues come in ascending order.
        principal = torch.linalg.eigh(centred.T @ centred).eigenvectors.T.flip(0)
        rows = []
        for point, weight in zip(
            [*self.points, "all"], [*self.weight, self.shared_weight], strict=True
        ):
            reads, _, _ = torch.linalg.svd(weight.to(table))
            cosines = torch.linalg.svdvals(principal[:k] @ reads[:, :k]).clamp(max=1)
            angles = cosines.acos().rad2deg()
            rows.append(
                {
                    "point": point,
                    "smallest": float(angles.min()),
                    "median": float(angles.quantile(0.5)),
                    "overlap": float(cosines.square().mean()),
                    "chance": k / table.shape[1],
                }
            )
        return pandas.DataFrame(rows)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, with maps in half precision if their values fit.

        Raises `OSError` if the file cannot be written.
        """
        rest = {
            "points": self.points,
            "fingerprint": self.fingerprint,
            "settings": dict(self.settings),
        }
        names = ("weight", "bias", "shared_weight", "shared_bias")
        tensors = {name: narrowed(getattr(self, name), torch.float16) for name in names}
        save_tensors(path, tensors | {"counts": self.counts}, kind="probe", rest=rest)

    @classmethod
    def load(cls, path: str | Path) -> "InputProbe":
        """Read what `save` wrote, in float32.

        Raises `FileNotFoundError` if there is no file, `ValueError` if it is of another kind.
        """
        tensors, rest = load_tensors(path, kind="probe")
        return restored(cls, path, rest | widened(tensors), ("points", "weight"))


@exclusive
@torch.no_grad()
def fit_input_probe(
    bridge: TransformerBridge,
    texts: Iterable[TextOrTokens],
    *,
    window: int = 512,
    skip_first: int = 1,
    holdout: int = 10,
    prepend_bos: bool | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> InputProbe:
    """Fit maps from every residual point to the input token's embedding, in one pass.

    This is ridge regression to the embedding as the model feeds it, minus the mean over the
    vocabulary. Memory holds only moments, `[point, d_model, d_model]` in float64, of the fitted and
    of the held-out text.

    **Arguments:**

    - `texts`: any iterable, read once. Each text is read in windows of `window` tokens, or of the
        model's context if that is shorter; each begins with the BOS if the text does.
    - `skip_first`: leave out this many tokens at the start of every window: the first is an
        outlier.
    - `holdout`: one window in this many is not fitted to, but chooses the ridge of each point.
    - `prepend_bos`: as in `TransformerBridge.to_tokens`.
    - `checkpoint`: a file to which the sums are written every minute. The same call on the same
        texts continues from it and gives the same numbers. Remove it when the fit is done.
    - `progress`: show a progress bar over tokens.

    Raises `ValueError` if there are fewer windows than `holdout`, if that or `window` is below 2 or
    `skip_first` below 0 or not below the window, if the checkpoint belongs to another fit or other
    texts, or could not record what changes the model besides its weights, if a residual is not
    finite, or if the model's logits are not the final norm and the unembedding of its last
    residual; `NotImplementedError` if the model is recurrent or not a causal decoder; `TypeError`
    if one of these is not a whole number or `texts` is one text; `OSError` if the checkpoint cannot
    be written.
    """
    table, n_points = input_embeddings(bridge), int(bridge.cfg.n_layers) + 1

    def add(
        moments: RidgeMoments,
        tokens: Int[Tensor, " pos"],
        streams: Sequence[Float[Tensor, "pos d_model"]],
    ) -> None:
        targets = as_double(table[tokens])
        scale = torch.ones_like(targets[:, :1])
        for index, stream in enumerate(streams):
            moments.add(index, unit_size(stream), targets, scale)

    moments = corpus_moments(
        bridge,
        texts,
        add,
        n_maps=n_points,
        purpose="InputProbe",
        window=window,
        skip_first=skip_first,
        holdout=holdout,
        prepend_bos=prepend_bos,
        checkpoint=checkpoint,
        progress=progress,
    )
    solutions, above = moments.solve(), slice(1, None)
    shared = moments.fitted.pooled(above).solve(0, moments.held_out.pooled(above))
    dtype = at_least_float32(table.dtype)
    return InputProbe(
        select_points(int(bridge.cfg.n_layers)),
        torch.stack([solution.weight for solution in solutions]).to("cpu", dtype),
        torch.stack([solution.bias for solution in solutions]).to("cpu", dtype),
        shared.weight.to("cpu", dtype),
        shared.bias.to("cpu", dtype),
        moments.counts,
        moments.fingerprint,
        {
            **moments.settings,
            "ridges": [solution.ridge for solution in solutions],
            "shared_ridge": shared.ridge,
        },
    )


@exclusive
def input_embeddings(bridge: TransformerBridge) -> Float[Tensor, "d_vocab d_model"]:
    """The targets of a probe: embeddings as the model feeds them, minus their mean."""
    ids = torch.arange(len(bridge.W_E), device=bridge.W_E.device)
    table = embedding(bridge)(ids)
    return table - table.mean(0)


def unit_size(residual: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row d_model"]:
    """Residuals scaled to unit root mean square, as a probe reads them."""
    # In float16 the square of an entry above 255 is infinite.
    wide = residual.to(at_least_float32(residual.dtype))
    size = wide.square().mean(-1, keepdim=True).sqrt()
    return (wide / size.where(size > 0, 1)).to(residual.dtype)
