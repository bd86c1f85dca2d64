"""Where in the residual stream an input probe finds the input: its map, read in a basis.

What a linear map reads and where the signal is are two things: a map also has weights that cancel
noise. The signal is where the stream covaries with what the map estimates (Haufe et al. 2014, "On
the interpretation of weight vectors of linear models in multivariate neuroimaging").
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from ..drawing.curves import Curve
from ..drawing.theme import ThemeName
from ..lens.figures.over_layers import draw_over_layers
from ..measures.intervals import mean_intervals
from ..model.exclusive import exclusive
from ..model.points import point_name
from ..model.residuals import residuals
from ..model.text_pieces import as_batch, token_pieces
from ..model.tokens import TextOrTokens, require_texts
from .embedding_basis import EmbeddingBasis
from .input_probe import InputProbe, unit_size

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects as go

MEASURES = ("input", "estimate", "stream")

LABELS = {
    "input": "the input, where it lies",
    "estimate": "the probe's estimate, where it is read",
    "stream": "the stream itself",
}
"""The measures in words."""


@dataclass(frozen=True)
class InputReading:
    """How much of the input, of the probe's estimate and of the stream lies along directions.

    Attributes:
        basis: the directions.
        points: labels of the residual points.
        shares: `[measure, point, component, text]`. `input`: the component's share of the squared
            covariance of the stream with the probe's estimate, which is where the input is.
            `estimate`: the share of the variance of the estimate that is read through the
            component; where the input stands out from the rest equally well in all directions,
            all have the same. `stream`: the share of the variance of the stream, which random
            directions of its covariance have on average. Over an orthogonal basis of the whole
            stream they add up to 1. Directions of a factorization overlap, so that theirs compare
            with each other alone.
    """

    basis: EmbeddingBasis
    points: tuple[str, ...]
    shares: Float[np.ndarray, "measure point component text"]

    def part(self, first: int, last: int) -> Float[np.ndarray, "measure point text"]:
        """The shares of components `first` to `last`, exclusive, together."""
        return self.shares[:, :, first:last].sum(2)

    def to_dataframe(
        self, *, parts: int = 2, level: float = 0.95, seed: int = 0
    ) -> "pandas.DataFrame":
        """Components in equal parts by importance: one row per (measure, point, part).

        Columns `mean` over texts, `low`, `high`, `n` texts and `importance` of the part; part 0
        is the most important.

        Raises `ValueError` if there are not as many components as `parts`.
        """
        import pandas

        rows = []
        bounds = _bounds(len(self.basis.directions), parts)
        for part, (first, last) in enumerate(bounds):
            cells = self.part(first, last)
            intervals = mean_intervals(
                cells.reshape(-1, cells.shape[-1]), rng=np.random.default_rng(seed), level=level
            )
            names = [(measure, point) for measure in MEASURES for point in self.points]
            rows += [
                {
                    "measure": measure,
                    "point": point,
                    "part": part,
                    "mean": interval.estimate,
                    "low": interval.low,
                    "high": interval.high,
                    "n": interval.n,
                    "importance": float(self.basis.importance[first:last].sum()),
                }
                for (measure, point), interval in zip(names, intervals, strict=True)
            ]
        return pandas.DataFrame(rows)

    def plot(
        self,
        *,
        level: float = 0.95,
        seed: int = 0,
        title: str | None = None,
        theme: ThemeName = "light",
    ) -> "go.Figure":
        """The share of the less important half of the components, over the points.

        `level` and `seed` are those of the intervals over texts, `title` replaces the figure's own,
        and `theme` is `"light"` or `"dark"`.
        """
        table = self.to_dataframe(level=level, seed=seed)
        half = table[table["part"] == 1]
        curves = [
            Curve(
                label=LABELS[measure],
                unit="share of the variance",
                x=[point_name(point) for point in self.points],
                values=rows["mean"].to_numpy(),
                low=rows["low"].to_numpy(),
                high=rows["high"].to_numpy(),
                colour=number,
                dash=number,
            )
            for number, measure in enumerate(MEASURES)
            for rows in [half[half["measure"] == measure]]
        ]
        importance = float(half["importance"].iloc[0])
        of = "unembedding" if self.basis.kind == "unembedding" else "embedding"
        return draw_over_layers(
            curves,
            title=title or "What lies along the directions that matter least",
            subtitle=f"The less important half of the {len(self.basis.directions)} components "
            f"({self.basis.kind}), which holds {importance:.1%} of the {of}. Means over "
            f"{self.shares.shape[-1]} texts; bands are {level:.0%} bootstrap intervals.",
            theme=theme,
        )


def _bounds(n: int, parts: int) -> list[tuple[int, int]]:
    if not 1 <= parts <= n:
        raise ValueError(f"parts must be between 1 and the {n} components, got {parts}")
    edges = [round(n * i / parts) for i in range(parts + 1)]
    return list(itertools.pairwise(edges))


@exclusive
@torch.no_grad()
def input_reading(
    bridge: TransformerBridge,
    probe: InputProbe,
    texts: Iterable[TextOrTokens],
    basis: EmbeddingBasis,
    *,
    max_tokens: int = 512,
    skip_first: int = 1,
    prepend_bos: bool | None = None,
    progress: bool = True,
) -> InputReading:
    """Say along which directions of the residual stream a probe finds the input.

    With the stream x, less its mean over the text and of unit size, and the estimate y = x W, the
    input lies where `C = sum of x y` over tokens is large. The share of a direction d is that of
    `d C_t · d C` in all, where `C_t` is of one text and C of all others: chance agrees with itself
    in one text, and not in two. The estimate is read through d by `(x d) (d W)`, whose covariance
    with y counts.

    **Arguments:**

    - `probe`: of `fit_input_probe`, on this bridge's weights.
    - `texts`: two or more that the probe was not fitted to, each cut to `max_tokens`. They are held
        as tokens, and read twice.
    - `basis`: of `embedding_basis`.
    - `skip_first`: leave out this many tokens of each: the first is an outlier.
    - `prepend_bos`: as in `TransformerBridge.to_tokens`.
    - `progress`: show a progress bar over texts.

    Raises `ValueError` if the probe is of other weights, the basis of another width, or if fewer
    than two texts have two tokens after `skip_first`; `TypeError` if `texts` is one text.
    """
    require_texts(texts)
    probe.require_fits(bridge)
    d_model = int(bridge.cfg.d_model)
    if basis.directions.shape[1] != d_model:
        raise ValueError(
            f"the basis has directions of width {basis.directions.shape[1]}, the model of "
            f"{d_model}: make it with embedding_basis on this bridge"
        )
    directions = basis.directions.double()
    pieces = [
        next(iter(token_pieces(bridge, [text], length=max_tokens, prepend_bos=prepend_bos)))
        for text in texts
    ]
    pieces = [piece for piece in pieces if len(piece) >= skip_first + 2]
    if len(pieces) < 2:
        raise ValueError(
            f"texts are compared with each other, and {len(pieces)} of them have two tokens after "
            f"the first {skip_first}: give two or more"
        )

    weights = probe.weight.to(directions)
    read_through = directions @ weights

    def parts() -> Iterator[list[_Part]]:
        for piece in tqdm(pieces, disable=not progress, unit="text", desc="reading"):
            streams = residuals(bridge, as_batch(piece), probe.points)
            yield [
                _Part.of(stream[0, skip_first:], weight, directions, through)
                for stream, weight, through in zip(streams, weights, read_through, strict=True)
            ]

    whole: list[_Part] = []
    for of_text in parts():
        whole = of_text if not whole else [a + b for a, b in zip(whole, of_text, strict=True)]
    found = [
        torch.stack([part.shares(total) for total, part in zip(whole, of_text, strict=True)], 1)
        for of_text in parts()
    ]
    return InputReading(basis, probe.points, torch.stack(found, -1).cpu().numpy())


@dataclass(frozen=True)
class _Part:
    """Sums over tokens at one point, of one text or of all.

    Attributes:
        covariance: `[d_model, d_model]`, of the stream with the estimate.
        along: `[component, d_model]`, of the stream along each direction with the estimate.
        estimate: `[component]`, what is read through each, as a share.
        stream: `[component]`, of the stream's variance, as a share.
    """

    covariance: Float[Tensor, "d_model d_model"]
    along: Float[Tensor, "component d_model"]
    estimate: Float[Tensor, " component"]
    stream: Float[Tensor, " component"]

    @classmethod
    def of(
        cls,
        stream: Float[Tensor, "pos d_model"],
        weight: Float[Tensor, "d_model d_model"],
        directions: Float[Tensor, "component d_model"],
        through: Float[Tensor, "component d_model"],
    ) -> "_Part":
        """Of the residuals of a text; `through` is what the map makes of each direction."""
        x = unit_size(stream).to(directions)
        x = x - x.mean(0)
        y, components = x @ weight, x @ directions.T
        along = components.T @ y
        read = (along * through).sum(-1)
        return cls(
            x.T @ y,
            along,
            read / y.square().sum(),
            components.square().sum(0) / x.square().sum(),
        )

    def __add__(self, other: "_Part") -> "_Part":
        return _Part(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def shares(self, whole: "_Part") -> Float[Tensor, "measure component"]:
        """The three measures of a text, where `whole` is of all texts, this one included."""
        agreed = (self.along * (whole.along - self.along)).sum(-1)
        in_all = (self.covariance * (whole.covariance - self.covariance)).sum()
        return torch.stack([agreed / in_all, self.estimate, self.stream])
