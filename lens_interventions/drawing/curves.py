"""Curves over the layers, with bands where there are intervals, in a panel for each unit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from .colours import LINES
from .labels import markup
from .theme import ThemeName, template
from .titles import LINE, headline, title_block

if TYPE_CHECKING:
    import plotly.graph_objects as go

_DASHES = ("solid", "7px,3px", "2px,2px", "9px,3px,2px,3px")
_RANK_TICKS = (0, 1, 10, 100, 1_000, 10_000, 100_000)
_NOMINAL_WIDTH = 760  # pixels that titles are wrapped for; the figure itself fits its place
_LEFT, _RIGHT = 70, 24
_PANEL_HEIGHT = 320
_ENTRY_WIDTH, _LETTER = 210, 7  # pixels: of a legend's entry at least, and of a letter in it
_MOST_LABELS = 11  # of layers below a panel


@dataclass(frozen=True)
class Curve:
    """One line.

    Attributes:
        label: in the legend.
        unit: of its values; curves of one unit share a panel.
        values: `[point]`, NaN where there is none; of a rank the decimal logarithm of one plus it.
        hover: `[point]`, text shown at each.
        colour, dash: numbers of the line's colour and dash.
        low, high: `[point]`, the ends of its band.
    """

    label: str
    unit: str
    values: Float[np.ndarray, " point"]
    hover: list[str]
    colour: int
    dash: int = 0
    low: Float[np.ndarray, " point"] | None = None
    high: Float[np.ndarray, " point"] | None = None


def draw_curves(
    curves: Sequence[Curve], layers: Sequence[str], *, title: str, subtitle: str, theme: ThemeName
) -> "go.Figure":
    """Curves over `layers`, which are named in order; up to two panels beside each other."""
    from plotly.subplots import make_subplots

    units = list(dict.fromkeys(curve.unit for curve in curves))
    columns = min(len(units), 2)
    rows = math.ceil(len(units) / columns)
    figure = make_subplots(rows, columns, horizontal_spacing=0.12, vertical_spacing=0.28 / rows)
    figure.update_layout(template=template(theme))
    for curve in curves:
        place = divmod(units.index(curve.unit), columns)
        for trace in _traces(curve):
            figure.add_trace(trace, row=place[0] + 1, col=place[1] + 1)
    step = max(1, round(len(layers) / _MOST_LABELS))
    last = len(layers) - 1
    shown = [i for i in range(0, last, step) if last - i >= step] + [last]
    figure.update_xaxes(
        title={"text": "residual stream entering block", "standoff": 8},
        tickvals=shown,
        ticktext=[layers[i] for i in shown],
        range=[-0.3, last + 0.3],
        tickangle=0,
    )
    for index, unit in enumerate(units):
        place = divmod(index, columns)
        figure.update_yaxes(**_y_axis(unit), row=place[0] + 1, col=place[1] + 1)
    lines = headline(title, subtitle, _NOMINAL_WIDTH)
    top = LINE * len(lines) + 30
    entry = max(_ENTRY_WIDTH, 45 + _LETTER * max(len(curve.label) for curve in curves))
    legend_rows = math.ceil(len(curves) / max(1, (_NOMINAL_WIDTH - _LEFT - _RIGHT) // entry))
    bottom = 64 + 22 * legend_rows
    height = top + rows * _PANEL_HEIGHT + bottom
    figure.update_layout(
        height=height,
        margin={"l": _LEFT, "r": _RIGHT, "t": top, "b": bottom},
        title=title_block(lines, height),
        legend={
            "orientation": "h",
            "x": 0,
            "yref": "container",
            "y": 0.01,
            "yanchor": "bottom",
            "entrywidth": entry,
        },
        dragmode=False,
    )
    return figure


def _traces(curve: Curve) -> list["go.Scatter"]:
    import plotly.graph_objects as go

    colour = LINES[curve.colour % len(LINES)]
    x = list(range(len(curve.values)))
    traces = []
    if curve.low is not None and curve.high is not None:
        there = [i for i in x if np.isfinite([curve.low[i], curve.high[i]]).all()]
        traces.append(
            go.Scatter(
                x=there + there[::-1],
                y=[*_numbers(curve.high[there]), *_numbers(curve.low[there[::-1]])],
                fill="toself",
                fillcolor=colour,
                opacity=0.22,
                line={"width": 0},
                mode="lines",
                hoverinfo="skip",
                showlegend=False,
                legendgroup=curve.label,
            )
        )
    line = go.Scatter(
        x=x,
        y=_numbers(curve.values),
        mode="lines+markers",
        line={"color": colour, "width": 2, "dash": _DASHES[curve.dash % len(_DASHES)]},
        marker={"size": 5, "symbol": curve.colour},
        name=markup(curve.label),
        legendgroup=curve.label,
        text=curve.hover,
        hovertemplate="%{text}<extra></extra>",
    )
    return [*traces, line]


def _numbers(values: Float[np.ndarray, " point"]) -> list[float | None]:
    return [round(value, 4) if math.isfinite(value) else None for value in values.tolist()]


def _y_axis(unit: str) -> dict:
    if unit == "rank":
        return {
            "title_text": "rank (0 = top guess)",
            "tickvals": [math.log10(1 + rank) for rank in _RANK_TICKS],
            "ticktext": [f"{rank:,}" for rank in _RANK_TICKS],
            "autorange": "reversed",
        }
    if unit == "share":
        return {"title_text": "share of positions", "tickformat": ".0%", "rangemode": "tozero"}
    return {"title_text": unit, "rangemode": "tozero" if unit == "nats" else "normal"}
