"""Fitting affine lenses in closed form, in one pass over any amount of text."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..lens.affine import AffineLens
from ..model.argument_types import require_instance
from ..model.exclusive import exclusive
from ..model.kinds import ReadableModel
from ..model.precision import as_double, at_least_float32
from ..model.readout import readout
from ..model.tokens import TextOrTokens
from .corpus_moments import corpus_moments
from .ridge import RidgeMoments
from .shrinkage import full_length_bias, unread_direction


@exclusive
@torch.no_grad()
def fit_affine_lens(
    bridge: ReadableModel,
    texts: Iterable[TextOrTokens],
    *,
    window: int = 512,
    skip_first: int = 1,
    holdout: int = 10,
    full_length: bool = True,
    prepend_bos: bool | None = None,
    corpus: str = "",
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> AffineLens:
    """Fit a map per layer by ridge regression, in one pass over any amount of text.

    Minimizes `sum_i |r[L]_i - T_l(r[l]_i)|² / |r[L]_i|²` with a ridge that draws `T_l` to the
    identity. Every position counts the same, because the final norm makes the length of a residual
    irrelevant. Memory holds only moments, `[layer, d_model, d_model]` in float64, of the fitted and
    of the held-out text. The result does not depend on how texts are batched.

    **Arguments:**

    - `texts`: any iterable, read once. Each text is read in windows of `window` tokens, or of the
        model's context if that is shorter; each begins with the BOS if the text does.
    - `skip_first`: leave out this many tokens at the start of every window: the first is an
        outlier, at which attention rests.
    - `holdout`: one window in this many is not fitted to, but chooses the ridge of each layer.
    - `full_length`: restore the length that regression takes from a residual, by a bias along the
        direction that the logits see least. After plain regression a lens is too certain where it
        knows little, because the final norm stretches short residuals.
    - `prepend_bos`: as in `TransformerBridge.to_tokens`.
    - `corpus`: a description of the texts, kept in the lens's settings beside their hash.
    - `checkpoint`: a file to which the sums are written every minute. The same call on the same
        texts continues from it and gives the same numbers. Remove it when the fit is done.
    - `progress`: show a progress bar over tokens.

    Raises `ValueError` if there are fewer windows than `holdout`, if that or `window` is below 2 or
    `skip_first` below 0 or not below the window, if the checkpoint belongs to another fit or other
    texts, or could not record what changes the model besides its weights, if a residual is not
    finite, or if the model's logits are not the final norm and the unembedding of its last
    residual; `NotImplementedError` if the model is recurrent or not a causal decoder; `TypeError`
    if one of these is not a whole number, `texts` is one text or `corpus` is no text; `OSError` if
    the checkpoint cannot be written.
    """
    require_instance("corpus", corpus, str)

    def add(
        moments: RidgeMoments,
        _tokens: Int[Tensor, " pos"],
        streams: Sequence[Float[Tensor, "pos d_model"]],
    ) -> None:
        last = as_double(streams[-1])
        length = last.norm(dim=-1, keepdim=True)
        scale = 1 / length.where(length > 0, 1)
        for layer, stream in enumerate(streams[:-1]):
            rows = as_double(stream)
            moments.add(layer, rows, last - rows, scale)

    moments = corpus_moments(
        bridge,
        texts,
        add,
        n_maps=int(bridge.cfg.n_layers),
        purpose="AffineLens",
        window=window,
        skip_first=skip_first,
        holdout=holdout,
        prepend_bos=prepend_bos,
        checkpoint=checkpoint,
        progress=progress,
    )
    solutions = moments.solve()
    biases = [solution.bias for solution in solutions]
    head = readout(bridge)
    if full_length and head.norm is not None:
        direction = unread_direction(head)
        for layer, solution in enumerate(solutions):
            biases[layer] = full_length_bias(moments.held_out, layer, solution, direction)
    dtype = at_least_float32(bridge.W_U.dtype)
    return AffineLens(
        torch.stack([solution.weight for solution in solutions]).to("cpu", dtype),
        torch.stack(biases).to("cpu", dtype),
        moments.fingerprint,
        {
            **moments.settings,
            "corpus": corpus,
            "full_length": full_length,
            "ridges": [solution.ridge for solution in solutions],
        },
    )
