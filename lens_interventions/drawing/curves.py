"""Curves, with bands for intervals, in panels beside each other or in views that take turns."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from .colours import LINES
from .labels import markup, number
from .menu import add_menu
from .scales import thinned
from .theme import ThemeName, template
from .titles import LINE, headline, title_block, wrapped_heading
from .units import RANK, SHARE, place, unit_title

if TYPE_CHECKING:
    import plotly.graph_objects as go

_DASHES = ("solid", "7px,3px", "2px,2px", "9px,3px,2px,3px")
_SYMBOLS = 8  # of plotly's: circle, square, diamond, cross, x and triangles
_MOST_MARKED = 60  # points, beyond which markers hide the line
_RANK_TICKS = (0, 1, 10, 100, 1_000, 10_000, 100_000)
_NOMINAL_WIDTH = 640  # pixels that titles are wrapped for; the figure itself fits its place
_LEFT, _RIGHT = 70, 24
_PANEL_HEIGHT = 320
# Pixels: of the text of a legend's entry at least, of a letter in it, and of the line before it.
_ENTRY_WIDTH, _LETTER, _SAMPLE_LINE = 165, 6.9, 45
_LEGEND_ROW = 29
_AXIS = 60  # pixels of the labels and the title below a panel
_MOST_LABELS = 11  # of names below a panel


@dataclass(frozen=True)
class Curve:
    """One line.

    Attributes:
        label: in the legend.
        unit: the unit of its values, which names their axis.
        x: `[point]`, the places of the points: numbers, or names in their order.
        values: `[point]`, NaN for a missing value.
        low, high: `[point]`, the ends of the values' intervals.
        notes: `[point]`, one more line in the hover of each point.
        colour, dash: numbers of the line's colour and dash.
        quantity: what its values are, if the label does not tell; it is the title of the axis if
            that is so for all curves of a panel.
        banded: whether the intervals are drawn as a band; the hover shows them in any case.
        faint: whether the line is thin and pale, such as a noisy curve behind a smooth one.
    """

    label: str
    unit: str
    x: Sequence[str] | Sequence[float]
    values: Float[np.ndarray, " point"]
    low: Float[np.ndarray, " point"] | None = None
    high: Float[np.ndarray, " point"] | None = None
    notes: Sequence[str] | None = None
    colour: int = 0
    dash: int = 0
    quantity: str = ""
    banded: bool = True
    faint: bool = False


def draw_curves(
    curves: Sequence[Curve],
    *,
    x_title: str,
    x_name: str | None = None,
    title: str,
    subtitle: str = "",
    theme: ThemeName = "light",
) -> "go.Figure":
    """A panel for each unit, up to two of them beside each other.

    Curves of the same label are one entry of the legend.

    `x_name` is the name of a point's place in its hover, by default `x_title`. If the places have
    names, all curves must have the same names.

    Raises `ValueError` if there is no curve, or if the theme is unknown.
    """
    from plotly.subplots import make_subplots

    if not curves:
        raise ValueError("there is nothing to draw: give at least one curve")
    units = list(dict.fromkeys(curve.unit for curve in curves))
    columns = min(len(units), 2)
    rows = math.ceil(len(units) / columns)
    figure = make_subplots(rows, columns, horizontal_spacing=0.12, vertical_spacing=0.28 / rows)
    figure.update_layout(template=template(theme))
    listed: set[str] = set()
    for curve in curves:
        row, column = divmod(units.index(curve.unit), columns)
        *band, line = _traces(curve, x_name or x_title)
        if curve.label in listed:
            line.showlegend = False
        listed.add(curve.label)
        figure.add_traces([*band, line], rows=row + 1, cols=column + 1)
    figure.update_xaxes(title={"text": x_title, "standoff": 8}, **_names_axis(curves[0].x))
    for index, unit in enumerate(units):
        row, column = divmod(index, columns)
        quantities = {curve.quantity for curve in curves if curve.unit == unit}
        quantity = quantities.pop() if len(quantities) == 1 else ""
        figure.update_yaxes(**_y_axis(unit, quantity), row=row + 1, col=column + 1)
    lines = headline(title, subtitle, _NOMINAL_WIDTH)
    top = LINE * len(lines) + 30
    legend, bottom = _legend([curves])
    height = top + rows * _PANEL_HEIGHT + bottom
    # Where the figure is wide, a short legend stays at the axis, and what it leaves is below it.
    legend |= {"y": (bottom - _AXIS) / height, "yanchor": "top"}
    figure.update_layout(
        height=height,
        margin={"l": _LEFT, "r": _RIGHT, "t": top, "b": bottom},
        title=title_block(lines, height),
        legend=legend,
        dragmode=False,
    )
    return figure


def _legend(views: Iterable[Sequence[Curve]]) -> tuple[dict[str, Any], int]:
    """A legend below the panels, and the pixels that it takes with the axis above it.

    Its size fits the view with the most names.
    """
    views = [curves for curves in views if curves]
    longest = max((len(curve.label) for curves in views for curve in curves), default=0)
    entry = max(_ENTRY_WIDTH, round(_LETTER * longest))
    most = max((len({curve.label for curve in curves}) for curves in views), default=0)
    rows = math.ceil(most / max(1, (_NOMINAL_WIDTH - _LEFT - _RIGHT) // (entry + _SAMPLE_LINE)))
    legend = {
        "orientation": "h",
        "x": 0,
        "yref": "container",
        "y": 0.01,
        "yanchor": "bottom",
        "entrywidth": entry,
    }
    return legend, _AXIS + _LEGEND_ROW * rows


def draw_views(
    views: Mapping[str, Sequence[Curve]],
    *,
    x_title: str,
    title: str,
    subtitle: str = "",
    y_layout: Mapping[str, Any] | None = None,
    theme: ThemeName = "light",
) -> "go.Figure":
    """Views that take turns in one panel, and are chosen from a menu of their names.

    All curves of a view have the same unit, which names the axis; its scale is that of the first
    view. `y_layout` has further options of it, as plotly takes them.

    Raises `ValueError` for an unknown theme.
    """
    import plotly.graph_objects as go

    traces: list[go.Scatter] = []
    owner: list[str] = []
    for view, curves in views.items():
        made = [trace for curve in curves for trace in _traces(curve, x_title)]
        traces += made
        owner += [view] * len(made)
    first = next(iter(views), None)  # which the menu shows as chosen, even if it has no curves
    for trace, view in zip(traces, owner, strict=True):
        trace.visible = view == first
    figure = go.Figure(traces)
    every = [curve for curves in views.values() for curve in curves]
    legend, bottom = _legend(views.values())
    titles, below = wrapped_heading(title, subtitle)
    top = (84 if len(views) > 1 else 48) + below
    figure.update_layout(
        template=template(theme),
        title=titles,
        height=top + _PANEL_HEIGHT + bottom,
        margin={"l": 60, "r": 16, "t": top, "b": bottom},
        legend=legend,
        hovermode="closest",
        xaxis={"title": {"text": x_title}, **_places_axis(every)},
        yaxis={**(_y_axis(every[0].unit) if every else {}), **(y_layout or {})},
    )
    if len(views) > 1:
        units = {view: curves[0].unit for view, curves in views.items() if curves}
        changes = {v: {"yaxis.title.text": unit_title(unit)} for v, unit in units.items()}
        differ = len(set(units.values())) > 1
        add_menu(figure, owner, {v: changes.get(v, {}) if differ else {} for v in views})
    return figure


def _traces(curve: Curve, x_name: str) -> "list[go.Scatter]":
    """The band, if there is one, and the line."""
    import plotly.graph_objects as go

    colour = LINES[curve.colour % len(LINES)]
    traces = []
    if curve.banded and curve.low is not None and curve.high is not None:
        known = np.isfinite(curve.low) & np.isfinite(curve.high)
        around = [x for x, there in zip(curve.x, known.tolist(), strict=True) if there]
        above, below = (_heights(ends[known], curve.unit) for ends in (curve.high, curve.low))
        traces.append(
            go.Scatter(
                x=[*around, *around[::-1]],
                y=[*above, *below[::-1]],
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
    marked = not curve.faint and len(curve.x) <= _MOST_MARKED
    line = go.Scatter(
        x=list(curve.x),
        y=_heights(curve.values, curve.unit),
        mode="lines+markers" if marked else "lines",
        line={
            "color": colour,
            "width": 1 if curve.faint else 2,
            "dash": _DASHES[curve.dash % len(_DASHES)],
        },
        marker={"size": 5, "symbol": curve.colour % _SYMBOLS},
        opacity=0.85 if curve.faint else None,
        name=markup(curve.label),
        legendgroup=curve.label,
        text=_hover(curve, x_name),
        hovertemplate="%{text}<extra></extra>",
    )
    return [*traces, line]


def _heights(values: Float[np.ndarray, " point"], unit: str) -> list[float | None]:
    """The places of values on the axis; None for a missing value."""
    heights = place(values, unit).tolist()
    return [float(f"{height:.6g}") if math.isfinite(height) else None for height in heights]


def _hover(curve: Curve, x_name: str) -> list[str]:
    texts = []
    title = ", ".join(filter(None, [markup(curve.quantity), unit_title(curve.unit)]))
    for index, (x, value) in enumerate(zip(curve.x, curve.values.tolist(), strict=True)):
        lines = [markup(curve.label), f"{x_name}: {x}" if x_name else str(x)]
        lines.append(f"{title}: {number(value)}")
        if curve.low is not None and curve.high is not None:
            low, high = float(curve.low[index]), float(curve.high[index])
            if math.isfinite(low) and math.isfinite(high):
                lines[-1] += f" [{number(low)}, {number(high)}]"
        if curve.notes is not None:
            lines.append(markup(curve.notes[index]))
        texts.append("<br>".join(lines))
    return texts


def _places_axis(curves: Sequence[Curve]) -> dict[str, Any]:
    """An axis of the places of all curves, with a tick for each of few whole numbers."""
    places = {place for curve in curves for place in curve.x}
    whole = [place for place in places if isinstance(place, int)]
    if len(whole) == len(places) > 0 and max(whole) - min(whole) < _MOST_LABELS:
        return {"dtick": 1}  # of so few layers plotly would name halves, too
    if not any(isinstance(place, str) for place in places):
        return {}
    longest = max((curve.x for curve in curves), key=len)
    if len(longest) > _MOST_LABELS and all(set(curve.x) <= set(longest) for curve in curves):
        return _names_axis(longest)
    # Otherwise "1" would be read as a number, with ticks between numbers.
    return {"type": "category"}


def _names_axis(x: Sequence[str] | Sequence[float]) -> dict[str, Any]:
    """An axis with as many names as can be read, including the last; {} for numbers."""
    names = [place for place in x if isinstance(place, str)]
    if not names:
        return {}
    return {
        "type": "category",
        "tickvals": [names[i] for i in thinned(len(names), _MOST_LABELS)],
        "range": [-0.3, len(names) - 0.7],
        "tickangle": 0,
    }


def _y_axis(unit: str, quantity: str = "") -> dict[str, Any]:
    title = unit_title(unit)
    text = f"{markup(quantity)}<br>{title}" if quantity else title
    axis: dict[str, Any] = {"title": {"text": text}}
    if unit == RANK:
        ticks = {
            "tickvals": [math.log10(1 + rank) for rank in _RANK_TICKS],
            "ticktext": [f"{rank:,}" for rank in _RANK_TICKS],
        }
        return axis | ticks | {"autorange": "reversed"}
    if unit == SHARE:
        return axis | {"tickformat": ".0%", "rangemode": "tozero"}
    return axis | {"rangemode": "tozero"} if unit == "nats" else axis
