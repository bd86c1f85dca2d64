"""How much of the residual stream lies along directions of tokens that the output rules out.

A comment on the post supposes that the middle layers use the embeddings of tokens that are nearly
impossible in a context for other purposes, and that late layers subtract them. If so, more of a
middle residual lies along their directions than along random ones, and less of that arrives at the
output.
"""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, SupportsFloat

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from .._progress import progress_bar
from .._summary import summary
from ..drawing.labels import counted
from ..drawing.theme import ThemeName
from ..measures.interval_table import interval_rows
from ..model.argument_types import require_counts, require_whole_numbers
from ..model.exclusive import exclusive
from ..model.points import INPUT, select_points
from ..model.precision import as_double
from ..model.readout import Readout, readout, refuse_readout_hooks
from ..model.residuals import text_residuals
from ..model.text_pieces import first_pieces
from ..model.tokens import TextOrTokens, require_texts
from .figures.over_layers import draw_over_layers, table_curve
from .unlikely_pool import Matching, Pool, likeliest

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects as go

GROUPS = (
    "unlikely tokens",
    "unlikely random directions",
    "possible tokens",
    "possible random directions",
    "likeliest tokens",
)
MEASURES = ("size", "left at the output")


@dataclass(frozen=True, eq=False)
class UnlikelyComponents:
    """Components of residuals along token directions, by how likely the output makes the token.

    Attributes:
        points: labels of the residual points.
        below: the probability below which a token is unlikely.
        values: `[statistic, group, point, text]`, means over positions and directions. `size` is
            the squared component's share of the squared residual, times d_model; an average
            direction has 1. `left at the output` is the slope of a regression of the component at
            the output on the component at the point: 1 if the blocks above leave it alone, 0 if
            they remove it. NaN if a text has no such direction.
        unlikely: `[kind, text]`, the share of tokens and of random directions that are unlikely.
    """

    points: tuple[str, ...]
    below: float
    values: Float[np.ndarray, "statistic group point text"]
    unlikely: Float[np.ndarray, "kind text"]

    __repr__ = summary

    def to_dataframe(self, *, level: float = 0.95, seed: int = 0) -> "pandas.DataFrame":
        """One row per (statistic, group, point): `mean` over texts, `low`, `high`, `n` texts."""
        import pandas

        cells = self.values.reshape(-1, self.values.shape[-1])
        places = [
            {"statistic": statistic, "group": group, "point": point}
            for statistic, group, point in itertools.product(MEASURES, GROUPS, self.points)
        ]
        known = np.isfinite(cells).astype(np.float64)  # what counts 0 times is left out
        rows = interval_rows(places, cells, known, level=level, seed=seed, mean="mean")
        return pandas.DataFrame(rows)

    def plot(
        self,
        *,
        level: float = 0.95,
        seed: int = 0,
        title: str | None = None,
        theme: ThemeName = "light",
    ) -> "go.Figure":
        """Both statistics over the points above the input, a curve for each group.

        At the input sizes are so large that the curves above it would be flat.

        `level` and `seed` are confidence and resampling seed of the intervals over texts, `title`
        replaces the figure's own title, and `theme` is `"light"` or `"dark"`.
        """
        table = self.to_dataframe(level=level, seed=seed)
        above = table[table["point"] != INPUT]
        units = {"size": "size (1: any direction)", "left at the output": "left at the output"}
        curves = [
            table_curve(
                above[(above["statistic"] == statistic) & (above["group"] == group)],
                label=group,
                unit=units[statistic],
                colour=number,
                dash=number % 2,
            )
            for statistic in MEASURES
            for number, group in enumerate(GROUPS)
        ]
        n_texts = self.values.shape[-1]
        return draw_over_layers(
            curves,
            title=title or "Residuals along the directions of unlikely tokens",
            subtitle=f"Unlikely: below {self.below:g} at the output. "
            f"Means over {counted(n_texts, 'text')}.",
            level=level,
            theme=theme,
        )


@exclusive
@torch.no_grad()
def unlikely_components(
    bridge: TransformerBridge,
    texts: Iterable[TextOrTokens],
    *,
    below: float = 1e-6,
    directions: int = 1024,
    likely: int = 8,
    max_tokens: int = 512,
    skip_first: int = 1,
    seed: int = 0,
    prepend_bos: bool | None = None,
    progress: bool = True,
) -> UnlikelyComponents:
    """Measure residuals along directions of unlikely tokens, compared with random and likely ones.

    The direction of a token is the one along which its logit rises relative to the average logit:
    its row of the unembedding minus the mean row, times the gain of the final norm, scaled to unit
    length. The mean over the text is subtracted from residuals. A random direction belongs to a row
    drawn with the mean and the covariance of the unembedding's rows. It is unlikely if the output
    gives that row a probability less than `below`, as for tokens.

    **Arguments:**

    - `texts`: any iterable of texts, each cut to `max_tokens`; of a tensor, every row is one.
    - `below`: the probability at the output under which a token is unlikely.
    - `directions`: how many tokens are drawn for each text, and how many random directions; as many
        as the vocabulary has if it has fewer.
    - `likely`: how many of the likeliest tokens of each position stand for likely ones.
    - `skip_first`: leave out this many tokens of each text: the first is an outlier. A text whose
        other tokens are all equal is left out too, since its residuals may not vary.
    - `seed`: the seed of the draws; text i draws with `seed + i`.
    - `prepend_bos`: as in `TransformerBridge.to_tokens`.
    - `progress`: show a progress bar over texts.

    Raises `ValueError` if `below` is not between 0 and 1 or a number is too small, if no text has
    two different tokens after `skip_first`, if a residual or the unembedding is not finite, if a
    hook is on the final norm or the unembedding, or
    if the model's logits are not the final norm and the unembedding of its last residual;
    `TypeError` if `texts` is one text, or a number is of another type.
    """
    require_texts(bridge, texts)
    if not isinstance(below, SupportsFloat):
        raise TypeError(f"below must be a number, got {below!r:.60}")
    require_counts(directions=directions, likely=likely)
    require_counts(least=2, max_tokens=max_tokens)
    require_counts(least=0, skip_first=skip_first)
    require_whole_numbers(seed=seed)
    if not 0 < below < 1:
        raise ValueError(f"below must be a probability between 0 and 1, got {below}")
    read = readout(bridge)
    refuse_readout_hooks(bridge)
    matching, points = Matching.of(read), select_points(int(bridge.cfg.n_layers))
    values, shares = [], []
    bar = progress_bar(texts, shown=progress, unit="text", desc="unlikely tokens")
    pieces = first_pieces(bridge, bar, length=max_tokens, prepend_bos=prepend_bos)
    for number, piece in enumerate(pieces):
        if len(piece[skip_first:].unique()) < 2:
            continue
        streams = text_residuals(bridge, piece, points, first=skip_first)
        pools = matching.draw(directions, seed + number)
        found, unlikely = _measure(read, streams, pools, likely=likely, below=below)
        values.append(found)
        shares.append(unlikely)
    if not values:
        raise ValueError(f"no text has two different tokens after the first {skip_first}")
    return UnlikelyComponents(points, below, np.stack(values, -1), np.stack(shares, -1))


def _measure(
    read: Readout,
    streams: list[Float[Tensor, "pos d_model"]],
    pools: tuple[Pool, Pool],
    *,
    likely: int,
    below: float,
) -> tuple[Float[np.ndarray, "statistic group point"], Float[np.ndarray, " kind"]]:
    """Both statistics of one text, and the shares of unlikely directions."""
    normalized = read.normalize(streams[-1])
    ids, log_normalizer = likeliest(read, normalized, likely)
    unlikely = [pool.log_probs(normalized, log_normalizer) < math.log(below) for pool in pools]
    # In the order of GROUPS.
    masks = [*unlikely, *(~mask for mask in unlikely), torch.ones_like(ids, dtype=torch.bool)]
    likely_directions = read.unit_directions(read.weight[ids])

    def components(centred: Float[Tensor, "pos d_model"]) -> list[Tensor]:
        rows = centred.to(read.weight)
        of_pools = [rows @ pool.directions.T for pool in pools]
        of_likely = (likely_directions @ rows[..., None])[..., 0]
        return [*of_pools, *of_pools, of_likely]

    centred = [stream - stream.mean(0) for stream in streams]
    last = components(centred[-1])
    found = [
        [
            _statistics(rows, here, there, mask)
            for here, there, mask in zip(components(rows), last, masks, strict=True)
        ]
        for rows in centred
    ]
    shares = [float(as_double(mask).mean()) for mask in unlikely]
    return np.array(found).transpose(2, 1, 0), np.array(shares)


def _statistics(
    centred: Float[Tensor, "pos d_model"],
    here: Float[Tensor, "pos direction"],
    there: Float[Tensor, "pos direction"],
    mask: Bool[Tensor, "pos direction"],
) -> tuple[float, float]:
    """Both statistics of one group at one point."""
    length = as_double(centred).square().sum(-1, keepdim=True)
    here, there = as_double(here * mask), as_double(there * mask)
    square = here.square()
    size = (square / length).sum() / int(mask.sum()) * centred.shape[-1]
    return float(size), float((here * there).sum() / square.sum())
