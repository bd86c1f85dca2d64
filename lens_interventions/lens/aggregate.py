"""A lens over many texts: sums for each text, means for each point, intervals over texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from .._summary import summary
from ..drawing.curves import Curve
from ..drawing.labels import counted
from ..drawing.theme import ThemeName
from ..measures.intervals import Interval, mean_intervals
from ..model.points import point_name
from .figures.over_layers import draw_over_layers
from .statistics import averaged

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
            next token, and a token that the unembedding excludes has no log-probability. Where it
            is 0, the text counts in no mean and no interval.
    """

    points: tuple[str, ...]
    statistics: tuple[str, ...]
    totals: Float[np.ndarray, "statistic point text"]
    counts: Int[np.ndarray, "statistic text"]

    __repr__ = summary

    def means(self, statistic: str) -> Float[np.ndarray, " point"]:
        """Mean of a statistic over all positions of all texts, at every point; nan without one.

        Raises `ValueError` if the statistic was not aggregated.
        """
        index = self._index(statistic)
        count = self.counts[index].sum()
        return self.totals[index].sum(-1) / (count if count else np.nan)

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
        """One row per (point, statistic): `mean`, `low`, `high`, the interval's `method`, `n`.

        Points come in the order of the stream, which `groupby("point", sort=False)` keeps.
        """
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
                    label=label if not name else name if alone else f"{label}, {name}",
                    # The axis of a panel with one statistic names it.
                    quantity=label if name and alone else "",
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
        texts = counted(next(iter(counts.values())), "text")
    else:
        texts = ", ".join(f"{counted(n, 'text')} ({name})" for name, n in counts.items())
    subtitle = f"{texts}."
    if "rank" in units:
        subtitle += " Ranks are geometric means of 1 + rank."
    return draw_over_layers(
        curves,
        title=title or "Means over texts, layer by layer",
        subtitle=subtitle,
        level=level,
        theme=theme,
    )
