"""Means over many texts, layer by layer, with intervals as bands."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...drawing.curves import Curve, draw_curves
from ...drawing.labels import markup
from ...drawing.theme import ThemeName
from ..aggregate import LensAggregate
from .grid import point_name
from .hover import rounded
from .scales import SCALES

if TYPE_CHECKING:
    import plotly.graph_objects as go

_LOG_RANK = "log10_"
_SHARES = {
    "agrees_final": "Top guess is the final top guess",
    "agrees_next": "Top guess is the next token",
    "agrees_input": "Top guess is the input token",
}


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

    - `aggregates`: of `lens_over`; or several by name, such as clean and patched, to compare.
    - `statistics`: one or more of `LensAggregate.statistics`. Those of one unit share a panel.
        Ranks are geometric means of 1 + rank, on a logarithmic axis with the top guess at the top.
    - `include_input`: begin at the input, whose divergences dwarf the rest.
    - `level`, `seed`: of the intervals.
    - `title`, `theme`: as in `plot`.

    Raises `ValueError` for a statistic that was not aggregated, or points that differ.
    """
    named = aggregates if isinstance(aggregates, Mapping) else {"": aggregates}
    if isinstance(statistics, str):
        statistics = [statistics]
    if not named or not statistics:
        raise ValueError("there is nothing to draw: give an aggregate and a statistic at least")
    points = {aggregate.points for aggregate in named.values()}
    if len(points) > 1:
        raise ValueError(f"the aggregates have different points: {sorted(points)}")
    layers = [point_name(point) for point in points.pop()]
    start = 1 if layers[0] == "input" and len(layers) > 1 and not include_input else 0
    units = [_label_and_unit(statistic)[1] for statistic in statistics]
    curves = []
    for dash, (name, aggregate) in enumerate(named.items()):
        for index, statistic in enumerate(statistics):
            label, unit = _label_and_unit(statistic)
            alone = units.count(unit) == 1
            intervals = aggregate.intervals(statistic, level=level, seed=seed)[start:]
            ends = {
                end: np.array([getattr(interval, end) for interval in intervals])
                for end in ("estimate", "low", "high")
            }
            full = f"{label}, {name}" if name else label
            curves.append(
                Curve(
                    label=full,
                    unit=unit,
                    values=ends["estimate"],
                    low=ends["low"],
                    high=ends["high"],
                    hover=[
                        f"layer {layer}, {markup(full)}<br>{_interval(unit, *bounds)}"
                        for layer, *bounds in zip(layers[start:], *ends.values(), strict=True)
                    ],
                    colour=dash if alone else units[:index].count(unit),
                    dash=dash,
                )
            )
    counts = {name: aggregate.counts.shape[-1] for name, aggregate in named.items()}
    if len(set(counts.values())) == 1:
        texts = f"{next(iter(counts.values()))} texts"
    else:
        texts = ", ".join(f"{n} texts ({name})" for name, n in counts.items())
    subtitle = f"{texts}; bands are {level:.0%} bootstrap intervals over texts."
    if "rank" in units:
        subtitle += " Ranks are geometric means of 1 + rank."
    return draw_curves(
        curves,
        layers[start:],
        title=title or "Means over texts, layer by layer",
        subtitle=subtitle,
        theme=theme,
    )


def _label_and_unit(statistic: str) -> tuple[str, str]:
    if statistic in _SHARES:
        return _SHARES[statistic], "share"
    scale = SCALES.get(statistic.removeprefix(_LOG_RANK))
    if scale is None:
        raise ValueError(
            f"there are no curves of {statistic!r}: give names of `LensAggregate.statistics`"
        )
    return scale.title, scale.unit


def _interval(unit: str, *bounds: float) -> str:
    """The numbers as a reader knows them: ranks, not their logarithms."""
    values = [10**bound - 1 if unit == "rank" else bound for bound in bounds]
    mean, low, high = (rounded(float(value)) for value in values)
    return f"{mean} [{low}, {high}]"
