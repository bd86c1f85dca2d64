"""Where in the residual stream an input probe finds the input: its map, read in a basis."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
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

MEASURES = ("estimate", "stream")


@dataclass(frozen=True)
class InputReading:
    """What each direction of a basis adds to a probe's estimate, and to the stream itself.

    Attributes:
        basis: the directions.
        points: labels of the residual points.
        shares: `[measure, point, component, text]`. `estimate`: the share of the variance of the
            probe's estimate that comes through the component. `stream`: the component's share of
            the variance of the residual stream, which is what a map with random weights would
            read. Over an orthogonal basis of the whole stream they add up to 1; directions of a
            factorization overlap, so that theirs compare with each other alone. An estimate's
            can be below 0, where a component takes back what others add.
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
        labels = {"estimate": "the probe's estimate of the input", "stream": "the stream itself"}
        curves = [
            Curve(
                label=labels[measure],
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
            title=title or "What comes through the directions that matter least",
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
    """Take a probe's estimate of the input apart by the directions through which it comes.

    Of the stream x, less its mean over the text, `(x d_j) (d_j W)` is what the estimate gets through
    the direction d_j. A component's share is the covariance of that with the estimate, over the
    variance of the estimate.

    **Arguments:**

    - `probe`: of `fit_input_probe`, on this bridge's weights.
    - `texts`: ones that the probe was not fitted to, each cut to `max_tokens`.
    - `basis`: of `embedding_basis`.
    - `skip_first`: leave out this many tokens of each: the first is an outlier.
    - `prepend_bos`: as in `TransformerBridge.to_tokens`.
    - `progress`: show a progress bar over texts.

    Raises `ValueError` if the probe is of other weights, the basis of another width, or if no text
    has two tokens after `skip_first`; `TypeError` if `texts` is one text.
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
    maps = [weight.to(directions) for weight in probe.weight]
    found = []
    for text in tqdm(texts, disable=not progress, unit="text", desc="reading"):
        pieces = token_pieces(bridge, [text], length=max_tokens, prepend_bos=prepend_bos)
        piece = next(iter(pieces))
        if len(piece) < skip_first + 2:
            continue
        streams = residuals(bridge, as_batch(piece), probe.points)
        of_text = [
            _shares(unit_size(stream[0, skip_first:]).double(), weight, directions)
            for stream, weight in zip(streams, maps, strict=True)
        ]
        found.append(torch.stack(of_text, dim=1).cpu().numpy())
    if not found:
        raise ValueError(f"there is no text of two tokens after the first {skip_first}")
    return InputReading(basis, probe.points, np.stack(found, axis=-1))


def _shares(
    x: Float[Tensor, "pos d_model"],
    weight: Float[Tensor, "d_model d_model"],
    directions: Float[Tensor, "component d_model"],
) -> Float[Tensor, "measure component"]:
    """Shares of the estimate's and of the stream's variance at one point of one text."""
    x = x - x.mean(0)
    estimate, amounts = x @ weight, x @ directions.T
    shares = []
    for whole, rows in ((estimate, directions @ weight), (x, directions)):
        shares.append((amounts * (whole @ rows.T)).sum(0) / whole.square().sum())
    return torch.stack(shares)
