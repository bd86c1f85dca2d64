"""Where in the residual stream an input probe finds the input, by directions of a basis.

The weights of a linear map do not show where the signal is, because a map also has weights that
cancel noise. The signal is where the stream covaries with the map's estimate (Haufe et al. 2014,
"On the interpretation of weight vectors of linear models in multivariate neuroimaging").
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from .._progress import progress_bar
from .._summary import summary
from ..drawing.labels import counted
from ..drawing.theme import ThemeName
from ..lens.figures.over_layers import draw_over_layers, table_curve
from ..measures.interval_table import interval_rows
from ..measures.pairwise import pairwise_values
from ..model.argument_types import require_counts, require_instance
from ..model.exclusive import exclusive
from ..model.precision import as_double
from ..model.residuals import text_residuals
from ..model.text_pieces import first_pieces
from ..model.tokens import TextOrTokens
from .embedding_basis import EmbeddingBasis
from .input_probe import InputProbe, unit_size

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects as go

INPUT = "input"
MEASURES = (INPUT, "estimate", "stream")

LABELS = {
    "input": "the input, where it lies",
    "estimate": "the probe's estimate, where it is read",
    "stream": "the stream itself",
}
"""The measures in words."""


@dataclass(frozen=True, eq=False)
class InputReading:
    """The shares of the input, of the probe's estimate and of the stream along directions.

    Attributes:
        basis: the directions.
        points: labels of the residual points.
        shares: `[measure, point, component, text]`. `input` is the component's share of the squared
            covariance of the stream with the probe's estimate, which shows where the input is.
            `estimate` is the share of the variance of the estimate that is read through the
            component; it is the same for all components if the input stands out from the rest
            equally well in all directions. `stream` is the share of the variance of the stream, and
            the average share of random directions with the stream's covariance. Over an orthogonal
            basis of the whole stream, shares add up to 1. Directions of a factorization overlap, so
            their shares can only be compared with each other.
    """

    basis: EmbeddingBasis
    points: tuple[str, ...]
    shares: Float[np.ndarray, "measure point component text"]

    __repr__ = summary

    def part(self, first: int, last: int) -> Float[np.ndarray, "measure point text"]:
        """The shares of components `first` to `last`, exclusive, together."""
        return self.shares[:, :, first:last].sum(2)

    def to_dataframe(
        self, *, parts: int = 2, level: float = 0.95, seed: int = 0
    ) -> "pandas.DataFrame":
        """Components in equal parts by importance: one row per (measure, point, part).

        The columns are `mean` over texts, `low`, `high`, `n` texts and `importance` of the part;
        part 0 is the most important. The intervals of `input` know that each text was compared with
        all others (`pairwise_values`).

        Raises `ValueError` if `parts` is not between 1 and the number of components.
        """
        import pandas

        rows = []
        bounds = _bounds(len(self.basis.directions), parts)
        for part, (first, last) in enumerate(bounds):
            places = [
                {"measure": measure, "point": point, "part": part}
                for measure in MEASURES
                for point in self.points
            ]
            shares = self.part(first, last).copy()
            own = MEASURES.index(INPUT)
            shares[own] = pairwise_values(shares[own])
            cells = shares.reshape(len(places), -1)
            importance = float(self.basis.importance[first:last].sum())
            rows += [
                {**row, "importance": importance}
                for row in interval_rows(places, cells, level=level, seed=seed, mean="mean")
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

        `level` and `seed` are confidence and resampling seed of the intervals over texts, `title`
        replaces the figure's own title, and `theme` is `"light"` or `"dark"`.

        Raises `ValueError` if the basis has a single component.
        """
        if len(self.basis.directions) < 2:
            raise ValueError(
                "the figure compares halves of a basis, which needs two components or more; this "
                "one has 1: make it with a larger n_components"
            )
        table = self.to_dataframe(level=level, seed=seed)
        half = table[table["part"] == 1]
        curves = [
            table_curve(
                half[half["measure"] == measure],
                label=LABELS[measure],
                unit="share of the variance",
                colour=number,
                dash=number,
            )
            for number, measure in enumerate(MEASURES)
        ]
        importance = float(half["importance"].iloc[0])
        of = "unembedding" if self.basis.kind == "unembedding" else "embedding"
        return draw_over_layers(
            curves,
            title=title or "What lies along the directions that matter least",
            subtitle=f"The less important half of the {len(self.basis.directions)} components "
            f"({self.basis.kind}), which holds {importance:.1%} of the {of}. Means over "
            f"{counted(self.shares.shape[-1], 'text')}.",
            level=level,
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
    """Measure along which directions of the residual stream a probe finds the input.

    Let x be the stream, scaled to unit size and centred on its mean over the text, and y = x W the
    estimate. The input lies where `C = sum of x y` over tokens is large. The share of a direction d
    is its part of the sum of `d C_t · d C` over directions, where `C_t` is from one text and C from
    all others, because chance covariances agree within a text but not between texts. The part of
    the estimate that is read through d is `(x d) (d W)`; its covariance with y counts.

    **Arguments:**

    - `probe`: a result of `fit_input_probe` on this bridge's weights.
    - `texts`: three or more texts that the probe was not fitted to, each cut to `max_tokens`; of
        a tensor, every row is one. They are held as tokens and read twice. The share of `input` is
        the same for both of two texts, so two would not show how far texts differ.
    - `basis`: a result of `embedding_basis`.
    - `skip_first`: leave out this many tokens at the start of each text: the first is an outlier.
        A text whose other tokens are all equal is left out too, since its stream may not vary.
    - `prepend_bos`: as in `TransformerBridge.to_tokens`.
    - `progress`: show a progress bar over texts.

    Raises `ValueError` if the probe belongs to other weights, if the basis has another width, if a
    residual is not finite, or if fewer than three texts have two different tokens after
    `skip_first`; `TypeError` if `texts` is one text.
    """
    require_instance("probe", probe, InputProbe)
    require_instance("basis", basis, EmbeddingBasis)
    require_counts(least=2, max_tokens=max_tokens)
    require_counts(least=0, skip_first=skip_first)
    probe.require_fits(bridge)
    d_model = int(bridge.cfg.d_model)
    if basis.directions.shape[1] != d_model:
        raise ValueError(
            f"the basis has directions of width {basis.directions.shape[1]}, the model has "
            f"{d_model}: make it with embedding_basis on this bridge"
        )
    directions = as_double(basis.directions)
    pieces = [
        piece
        for piece in first_pieces(bridge, texts, length=max_tokens, prepend_bos=prepend_bos)
        if len(piece[skip_first:].unique()) > 1
    ]
    if len(pieces) < 3:
        raise ValueError(
            f"texts are compared with each other, but {len(pieces)} of them have two different "
            f"tokens after the first {skip_first}: give three or more"
        )

    weights = as_double(probe.weight).to(directions.device)
    read_through = directions @ weights

    def parts() -> Iterator[list[_Part]]:
        for piece in progress_bar(pieces, shown=progress, unit="text", desc="reading"):
            streams = text_residuals(bridge, piece, probe.points, first=skip_first)
            yield [
                _Part.of(stream, weight, directions, through)
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
        """The sums of one text; `through` is the map's output for each direction."""
        x = as_double(unit_size(stream)).to(directions.device)
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
        """The three measures of a text; `whole` has the sums of all texts, including this one."""
        agreed = (self.along * (whole.along - self.along)).sum(-1)
        in_all = (self.covariance * (whole.covariance - self.covariance)).sum()
        return torch.stack([agreed / in_all, self.estimate, self.stream])
