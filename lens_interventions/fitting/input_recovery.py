"""How well an input probe recovers the input token, by depth and by rarity."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from .._progress import progress_bar
from .._summary import summary
from ..drawing.labels import counted
from ..drawing.theme import ThemeName
from ..lens.distributions import ranks
from ..lens.figures.over_layers import draw_over_layers, table_curve
from ..measures.interval_table import interval_rows
from ..model.argument_types import require_counts, require_instance
from ..model.exclusive import exclusive
from ..model.precision import as_double, at_least_float32
from ..model.product import product
from ..model.product_trials import is_faster
from ..model.readout import LOGIT_ROWS
from ..model.residuals import text_residuals
from ..model.text_pieces import first_pieces
from ..model.tokens import TextOrTokens, require_texts
from .input_probe import InputProbe, input_embeddings

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects as go

MAPS = ("own", "shared")
# Lower ends of the bins, by how often a token was fitted to.
RARITY_EDGES = (0, 1, 10, 100, 1000)
_MEASURES = ("top1", "top10", "log10_rank")


@dataclass(frozen=True, eq=False)
class InputRecovery:
    """How the input token ranks among the whole vocabulary, summed by text.

    Attributes:
        points: labels of the residual points.
        maps: the maps that were tried: "own", the point's own, and "shared", one for all points.
        rarity: names of the bins, by how often the probe was fitted to the token; the last bin,
            "all", holds every token.
        totals: `[measure, map, point, rarity, text]`: how many input tokens came first (`top1`) or
            among the first ten (`top10`), and the sum of log10(1 + rank) (`log10_rank`).
        counts: `[rarity, text]`, the number of tokens in these sums.
    """

    points: tuple[str, ...]
    maps: tuple[str, ...]
    rarity: tuple[str, ...]
    totals: Float[np.ndarray, "measure map point rarity text"]
    counts: Int[np.ndarray, "rarity text"]

    __repr__ = summary

    def to_dataframe(self, *, level: float = 0.95, seed: int = 0) -> "pandas.DataFrame":
        """One row per (measure, map, point, rarity): `mean`, `low`, `high`, `n` texts, `tokens`."""
        import pandas

        shape = self.totals.shape
        counts = np.broadcast_to(self.counts, shape).reshape(-1, shape[-1])
        places = [
            {"measure": measure, "map": name, "point": point, "rarity": rarity}
            for measure, name, point, rarity in itertools.product(
                _MEASURES, self.maps, self.points, self.rarity
            )
        ]
        totals = self.totals.reshape(counts.shape)
        rows = interval_rows(places, totals, counts, level=level, seed=seed, mean="mean")
        frame = pandas.DataFrame(rows).assign(tokens=counts.sum(-1))
        return frame.query("tokens > 0").reset_index(drop=True)

    def plot(self, **options: Any) -> "go.Figure":
        """Recovery over depth, for each point's own map and for the shared one, if they were tried.

        `options` are `by_rarity=True` for a curve for each bin of rarity instead, `level` and
        `seed` of the intervals over texts, a `title`, and `theme="dark"`.
        """
        return plot_recovery(self, **options)


@exclusive
@torch.no_grad()
def input_recovery(
    bridge: TransformerBridge,
    probe: InputProbe,
    texts: Iterable[TextOrTokens],
    *,
    maps: Sequence[str] = MAPS,
    max_tokens: int = 512,
    skip_first: int = 1,
    prepend_bos: bool | None = None,
    progress: bool = True,
) -> InputRecovery:
    """Rank the input token among all tokens by the cosine of its embedding with a probe's estimate.

    The mean is subtracted from embeddings. The cosine is used because regression makes an uncertain
    estimate shorter, but does not turn it.

    **Arguments:**

    - `probe`: a result of `fit_input_probe` on this bridge's weights.
    - `texts`: texts that the probe was not fitted to, each cut to `max_tokens`; of a tensor, every
        row is one.
    - `maps`: `"own"`, `"shared"` or both. Each map compares every token with the whole vocabulary.
    - `skip_first`: leave out this many tokens at the start of each text: the first is an outlier.
    - `prepend_bos`: as in `TransformerBridge.to_tokens`.
    - `progress`: show a progress bar over texts.

    Raises `ValueError` if the probe belongs to other weights, if `maps` is empty or has an unknown
    name, if `max_tokens` is below 2 or `skip_first` below 0, if a residual is not finite, or if no
    text has more than `skip_first` tokens; `TypeError` if `texts` is one text.
    """
    require_texts(bridge, texts)
    require_counts(least=2, max_tokens=max_tokens)
    require_counts(least=0, skip_first=skip_first)
    if not maps or not set(maps) <= set(MAPS) or len(set(maps)) < len(maps):
        raise ValueError(f"maps must be some of {', '.join(MAPS)}, each once; got {tuple(maps)}")
    require_instance("probe", probe, InputProbe)
    probe.require_fits(bridge)
    embeddings = input_embeddings(bridge)
    # In half precision tokens nearly as close as the input would share its rank.
    table = torch.nn.functional.normalize(embeddings.to(at_least_float32(embeddings.dtype)), dim=-1)
    fast = is_faster(table)
    edges = torch.tensor(RARITY_EDGES, device=table.device)
    bins = torch.bucketize(probe.counts.to(table.device), edges, right=True) - 1
    totals, counts = [], []
    bar = progress_bar(texts, shown=progress, unit="text", desc="recovering")
    for piece in first_pieces(bridge, bar, length=max_tokens, prepend_bos=prepend_bos):
        tokens = piece[skip_first:]
        if len(tokens) == 0:
            continue
        streams = text_residuals(bridge, piece, probe.points, first=skip_first)
        at_points = list(zip(probe.points, streams, strict=True))
        found = [
            _ranks(probe(stream, point, shared=name == "shared"), tokens, table, fast)
            for name in maps
            for point, stream in at_points
        ]
        rank = as_double(torch.stack(found).unflatten(0, (len(maps), -1)))
        measures = torch.stack([(rank == 0).double(), (rank < 10).double(), (1 + rank).log10()])
        inside = as_double(torch.nn.functional.one_hot(bins[tokens], len(RARITY_EDGES)))
        inside = torch.cat([inside, torch.ones_like(inside[:, :1])], dim=-1)
        totals.append((measures @ inside).cpu().numpy())
        counts.append(inside.sum(0).long().cpu().numpy())
    if not totals:
        raise ValueError(f"there is no text of more than {skip_first} tokens")
    ends = [f"to {high - 1}" for high in RARITY_EDGES[1:]] + ["or more"]
    names = [f"{low} {end}" for low, end in zip(RARITY_EDGES, ends, strict=True)]
    names[0] = "never"
    return InputRecovery(
        probe.points,
        tuple(maps),
        (*names, "all"),
        np.stack(totals, axis=-1),
        np.stack(counts, axis=-1),
    )


def _ranks(
    vectors: Float[Tensor, "row d_model"],
    tokens: Int[Tensor, " row"],
    table: Float[Tensor, "d_vocab d_model"],
    fast: bool,
) -> Int[Tensor, " row"]:
    parts = zip(vectors.to(table).split(LOGIT_ROWS), tokens.split(LOGIT_ROWS), strict=True)
    return torch.cat(
        [ranks(product(rows, table, fast=fast), ids[:, None])[:, 0] for rows, ids in parts]
    )


def plot_recovery(
    recovery: InputRecovery,
    *,
    by_rarity: bool = False,
    level: float = 0.95,
    seed: int = 0,
    title: str | None = None,
    theme: ThemeName = "light",
) -> "go.Figure":
    """Shares of input tokens that rank first, or among the first ten, over the points.

    **Arguments:**

    - `recovery`: a result of `input_recovery`.
    - `by_rarity`: draw a curve for each bin of rarity, for the first of the maps, instead of a
        curve for each map.
    - `level`, `seed`: confidence of the intervals over texts, and the seed of their resamples.
    - `title`: replaces the figure's own title.
    - `theme`: `"light"` or `"dark"`.

    Raises `ValueError` if the theme is unknown.
    """
    table = recovery.to_dataframe(level=level, seed=seed)
    groups = dict(list(table.groupby(["map", "rarity", "measure"])))
    if by_rarity:
        seen = [name for name in recovery.rarity[:-1] if name in set(table.rarity)]
        named = [(name, (recovery.maps[0], name)) for name in seen]
    else:
        labels = {"own": "a map for each point", "shared": "one map for all"}
        named = [(labels[name], (name, "all")) for name in recovery.maps]
    curves = [
        table_curve(groups[(*key, measure)], label=label, unit=unit, colour=number, dash=number)
        for measure, unit in (("top1", "share first"), ("top10", "share in the first ten"))
        for number, (label, key) in enumerate(named)
    ]
    n_tokens = int(recovery.counts[-1].sum())
    subtitle = f"{n_tokens:,} tokens of {counted(recovery.counts.shape[-1], 'text')}."
    if by_rarity:
        subtitle += " Curves by how often the probe was fitted to the token."
    return draw_over_layers(
        curves,
        title=title or "The input token, recovered from the residual stream",
        subtitle=subtitle,
        level=level,
        theme=theme,
    )
