"""A lens over many texts: sums for each text, means for each point, intervals over texts."""

from collections.abc import Iterable, Mapping, Sequence, Sized
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from .._summary import summary
from ..drawing.curves import Curve
from ..drawing.theme import ThemeName
from ..measures.intervals import Interval, mean_intervals
from ..model.exclusive import exclusive
from ..model.kinds import ReadableModel
from ..model.points import point_name
from ..model.tokens import TextOrTokens, TokenBatch, about_text, require_texts, token_batch
from .cells import PositionError
from .figures.over_layers import draw_over_layers
from .logit_lens import logit_lens
from .statistics import averaged
from .trajectory import Trajectory

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False)
class LensAggregate:
    """Sums of a lens's statistics over the positions of each text.

    Attributes:
        points: labels of the residual points.
        statistics: names of the summed statistics. `log10_..._rank` is the decimal logarithm of one
            plus the zero-based rank. `agrees_...` is 1 if the point's top guess is that token, so
            its mean is a share. The rest are in nats.
        totals: `[statistic, point, text]`, sums over the positions of a text.
        counts: `[statistic, text]`, the number of positions in each sum. The last position has no
            next token, and a token that the head excludes has no log-probability. Where it is 0,
            the text counts in no mean and no interval.
    """

    points: tuple[str, ...]
    statistics: tuple[str, ...]
    totals: Float[np.ndarray, "statistic point text"]
    counts: Int[np.ndarray, "statistic text"]

    __repr__ = summary

    def means(self, statistic: str) -> Float[np.ndarray, " point"]:
        """Mean of a statistic over all positions of all texts, at every point.

        Raises `ValueError` if the statistic was not aggregated.
        """
        index = self._index(statistic)
        return self.totals[index].sum(-1) / self.counts[index].sum()

    def intervals(
        self, statistic: str, *, level: float = 0.95, seed: int = 0, n_resamples: int = 9999
    ) -> list[Interval]:
        """Bootstrap intervals of the means at every point, resampling texts `n_resamples` times.

        Raises `ValueError` if the statistic was not aggregated.
        """
        index = self._index(statistic)
        counts = np.broadcast_to(self.counts[index], self.totals[index].shape)
        return mean_intervals(
            self.totals[index],
            counts,
            rng=np.random.default_rng(seed),
            level=level,
            n_resamples=n_resamples,
        )

    def to_dataframe(self, *, level: float = 0.95, seed: int = 0) -> "pandas.DataFrame":
        """One row per (point, statistic): `mean`, `low`, `high`, the interval's `method`, `n`."""
        import pandas

        rows = [
            {
                "point": point,
                "statistic": statistic,
                "mean": interval.estimate,
                "low": interval.low,
                "high": interval.high,
                "method": interval.method,
                "n": interval.n,
            }
            for statistic in self.statistics
            for point, interval in zip(
                self.points, self.intervals(statistic, level=level, seed=seed), strict=True
            )
        ]
        return pandas.DataFrame(rows)

    def plot(
        self, statistics: Sequence[str] = ("kl_final", "kl_input"), **options: Any
    ) -> "go.Figure":
        """Curves over the points with their bands.

        `statistics` are one or more names of `self.statistics`. `options` are `include_input=True`
        to begin at the input, `level` and `seed` of the intervals, a `title`, and `theme="dark"`.

        Raises `ValueError` if a statistic was not aggregated.
        """
        return plot_aggregate(self, statistics, **options)

    def _index(self, statistic: str) -> int:
        if statistic not in self.statistics:
            raise ValueError(f"{statistic!r} was not aggregated; there are {list(self.statistics)}")
        return self.statistics.index(statistic)


@exclusive
def lens_over(
    bridge: ReadableModel,
    texts: Iterable[TextOrTokens],
    *,
    max_tokens: int | None = None,
    prepend_bos: bool | None = None,
    progress: bool = True,
    **options: Any,
) -> LensAggregate:
    """Read many texts, one after the other, keeping only sums over each text's positions.

    **Arguments:**

    - `texts`: any iterable, read once, such as a generator over a corpus. Each item is one text.
    - `max_tokens`: read no more than this many tokens of each text, or than the model's context if
        that is shorter. Without it a text must fit the context.
    - `prepend_bos`: as in `TransformerBridge.to_tokens`. A first token is often an outlier:
        `positions=(1, None)` leaves it out.
    - `options`: options of `logit_lens`, such as `points`, `positions`, `norm` and `lens`; all
        except those that ask for what is not kept (`top_k`, `watch`, `compare_with` and further
        `divergences`), and `attention_mask`, as a text has no padding. A text without any of the
        `positions`, because it is shorter, has counts of 0.

    Raises `ValueError` if there is no text, if none has the `positions`, if one cannot be read (the
    message names it by its number), or for an option that is excepted; `NotImplementedError` if the
    model is recurrent or not a causal decoder; `TypeError` if `texts` is one text, or one is
    neither text nor ids.
    """
    if "attention_mask" in options:
        raise ValueError(
            "lens_over reads each text alone: give the ids of each text without padding, and no "
            "attention_mask"
        )
    _refuse_what_is_not_kept(options)
    require_texts(bridge, texts)
    if max_tokens is not None and max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, got {max_tokens}")
    if max_tokens is not None:
        max_tokens = min(max_tokens, int(bridge.cfg.n_ctx))
    points: tuple[str, ...] = ()
    read: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    number = -1
    for number, text in enumerate(tqdm(texts, disable=not progress, unit="text", desc="lens")):
        with about_text(number), suppress(PositionError):
            given = {"text_or_tokens": text}
            if max_tokens is not None:
                given = _first(bridge, text, max_tokens, prepend_bos)
            trajectory = logit_lens(bridge, **given, prepend_bos=prepend_bos, top_k=1, **options)
            points, read[number] = trajectory.points, _sums(trajectory)
    if number < 0:
        raise ValueError("there are no texts to read")
    if not read:
        raise ValueError(
            f"no text has the positions {options['positions']!r}: give longer texts, or other "
            "positions"
        )
    totals = np.zeros((len(averaged()), len(points), number + 1))
    counts = np.zeros((len(averaged()), number + 1), dtype=np.int64)
    for place, (text_totals, text_counts) in read.items():
        totals[..., place], counts[..., place] = text_totals, text_counts
    return LensAggregate(points, tuple(averaged()), totals, counts)


def _refuse_what_is_not_kept(options: Mapping[str, Any]) -> None:
    kept = averaged().values()
    targets, kinds = ({getattr(row, of) for row in kept} for of in ("target", "kind"))
    compared = options.get("compare_with", "final") != "final"
    watch = options.get("watch")
    # A tensor of several ids is neither true nor false.
    watched = watch is not None and not (isinstance(watch, Sized) and len(watch) == 0)
    listed = options.get("divergences")
    # Anything else is refused by `logit_lens`.
    asked = set(listed) if isinstance(listed, (list, tuple, set, frozenset)) else set()
    further = sorted(asked - kinds)
    for name, what, lost in (
        ("top_k", "top tokens", "top_k" in options),
        ("watch", "watched tokens", watched and "watched" not in targets),
        ("compare_with", "comparison with another point", compared and "compare" not in targets),
        ("divergences", f"{further}", further),
    ):
        if lost:
            raise ValueError(
                f"lens_over keeps no {what}, so it takes no {name}: read the texts by logit_lens"
            )


def _first(
    bridge: ReadableModel, text: TextOrTokens, max_tokens: int, prepend_bos: bool | None
) -> dict[str, Any]:
    """The first tokens of a text, as arguments of `logit_lens`."""

    def first(length: int) -> TokenBatch:
        part = text[:length] if isinstance(text, str) else text
        batch = token_batch(bridge, part, prepend_bos=prepend_bos, any_length=True)
        batch = batch.padded_on("right")
        return TokenBatch(batch.tokens[:, :max_tokens], batch.mask[:, :max_tokens])

    # Only the beginning of a long text is tokenized: enough that twice as much begins alike.
    characters = 8 * max_tokens
    found = first(characters)
    while isinstance(text, str) and characters < len(text):
        characters *= 2
        found, before = first(characters), found
        enough = found.tokens.shape[1] == max_tokens
        if enough and torch.equal(found.tokens, before.tokens):
            break
    return {"text_or_tokens": found.tokens, "attention_mask": found.mask}


def _sums(
    trajectory: Trajectory,
) -> tuple[Float[np.ndarray, "statistic point"], Int[np.ndarray, " statistic"]]:
    has_next = trajectory.mask & (trajectory.next_tokens >= 0)
    totals, counts = [], []
    for statistic in averaged().values():
        value = trajectory.statistic(statistic.name).double()
        if statistic.unit == "rank":
            value = (1 + value.where(value >= 0, torch.nan)).log10()
        there = has_next if statistic.target == "next" else trajectory.mask
        # A token that the head excludes has no log-probability and no rank.
        there = there & value.isfinite().all(0)
        totals.append(value[:, there].sum(-1).numpy())
        counts.append(int(there.sum()))
    return np.stack(totals), np.array(counts)


def plot_aggregate(
    aggregates: LensAggregate | Mapping[str, LensAggregate],
    statistics: Sequence[str] = ("kl_final", "kl_input"),
    *,
    include_input: bool = False,
    level: float = 0.95,
    seed: int = 0,
    title: str | None = None,
    theme: ThemeName = "light",
) -> "go.Figure":
    """Curves of means over the layers, with bootstrap intervals over texts as bands.

    **Arguments:**

    - `aggregates`: a result of `lens_over`, or several by name, such as clean and patched, to
        compare.
    - `statistics`: one or more of `LensAggregate.statistics`. Those of one unit share a panel.
        Ranks are geometric means of 1 + rank, on a logarithmic axis with the top guess at the top.
    - `include_input`: begin at the input, whose divergences dwarf the rest.
    - `level`, `seed`: confidence of the intervals, and the seed of their resamples.
    - `title`: replaces the figure's own title.
    - `theme`: `"light"` or `"dark"`.

    Raises `ValueError` if a statistic was not aggregated, or if the points differ.
    """
    named = aggregates if isinstance(aggregates, Mapping) else {"": aggregates}
    if isinstance(statistics, str):
        statistics = [statistics]
    if not named or not statistics:
        raise ValueError("there is nothing to draw: give at least one aggregate and one statistic")
    points = {aggregate.points for aggregate in named.values()}
    if len(points) > 1:
        raise ValueError(f"the aggregates have different points: {sorted(points)}")
    layers = [point_name(point) for point in points.pop()]
    start = 1 if layers[0] == "input" and len(layers) > 1 and not include_input else 0
    known = averaged()
    if unknown := [name for name in statistics if name not in known]:
        raise ValueError(f"there are no means of {unknown[0]!r}; there are {list(known)}")
    units = [known[name].unit for name in statistics]
    curves = []
    for dash, (name, aggregate) in enumerate(named.items()):
        for index, statistic in enumerate(statistics):
            label, unit = known[statistic].title, known[statistic].unit
            alone = units.count(unit) == 1
            intervals = aggregate.intervals(statistic, level=level, seed=seed)[start:]
            mean, low, high = (
                np.array([getattr(interval, end) for interval in intervals])
                for end in ("estimate", "low", "high")
            )
            if unit == "rank":
                mean, low, high = 10**mean - 1, 10**low - 1, 10**high - 1
            curves.append(
                Curve(
                    label=f"{label}, {name}" if name else label,
                    unit=unit,
                    x=layers[start:],
                    values=mean,
                    low=low,
                    high=high,
                    colour=dash if alone else units[:index].count(unit),
                    dash=dash,
                )
            )
    counts = {name: int(each.counts.any(0).sum()) for name, each in named.items()}
    if len(set(counts.values())) == 1:
        texts = f"{next(iter(counts.values()))} texts"
    else:
        texts = ", ".join(f"{n} texts ({name})" for name, n in counts.items())
    subtitle = f"{texts}; bands are {level:.0%} bootstrap intervals over texts."
    if "rank" in units:
        subtitle += " Ranks are geometric means of 1 + rank."
    return draw_over_layers(
        curves,
        title=title or "Means over texts, layer by layer",
        subtitle=subtitle,
        theme=theme,
    )
