"""Curves with bands, several panels' worth of data behind buttons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from .colours import LINES
from .theme import template
from .titles import heading

if TYPE_CHECKING:
    import plotly.graph_objects as go

# More bands than this hide each other.
_BANDS = 4

_DASHES = ("solid", "dash", "dot")
_MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "cross")


@dataclass(frozen=True)
class Axes:
    """Columns that are drawn, and what stands beside them.

    Attributes:
        x, y: columns of the curves' points; `low` and `high`, if the table has them, are the band.
        group: column that tells the curves apart; its values are their names.
        x_title, y_title: of the axes.
        y_layout: more of the y axis, as plotly takes it.
    """

    x: str
    y: str
    group: str
    x_title: str
    y_title: str
    y_layout: Mapping[str, Any] | None = None


def curves(views: Mapping[str, pd.DataFrame], axes: Axes, *, title: str = "") -> "go.Figure":
    """One curve per group; several tables take turns, chosen by buttons that bear their names.

    Rows keep the order they have. The views may differ in their groups. Of more than four curves
    in a view only the first two have their bands drawn; the others' are told on hover.
    """
    import plotly.graph_objects as go

    names = [name for rows in views.values() for name in rows[axes.group].unique()]
    order = {name: place for place, name in enumerate(dict.fromkeys(names))}
    traces: list[go.Scatter] = []
    owner: list[str] = []
    first = next(iter(views), "")
    for view, rows in views.items():
        groups = list(rows.groupby(axes.group, sort=False))
        for number, (name, part) in enumerate(groups):
            banded = len(groups) <= _BANDS or number < 2
            made = _curve(str(name), part, axes, order[name], banded=banded)
            traces += made
            owner += [view] * len(made)
    for trace, view in zip(traces, owner, strict=True):
        trace.visible = view == first
    figure = go.Figure(traces)
    figure.update_layout(
        template=template("light"),
        title=heading(title),
        height=440,
        margin={"l": 60, "r": 16, "t": 84 if len(views) > 1 else 48, "b": 110},
        legend={"orientation": "h", "y": -0.22, "yanchor": "top", "x": 0, "xanchor": "left"},
        hovermode="closest",
        xaxis={"title": {"text": axes.x_title}},
        yaxis={"title": {"text": axes.y_title}, **(axes.y_layout or {})},
    )
    if any(not pd.api.types.is_numeric_dtype(rows[axes.x]) for rows in views.values()):
        # Else "1" would be read as a number, with ticks between.
        figure.update_xaxes(type="category")
    if len(views) > 1:
        add_buttons(figure, [(v, {"visible": [of == v for of in owner]}, {}) for v in views])
    return figure


def add_buttons(
    figure: "go.Figure", buttons: Sequence[tuple[str, dict[str, Any], dict[str, Any]]]
) -> None:
    """A menu of (label, restyle, relayout) over the plot; the first is shown at the start."""
    figure.update_layout(
        updatemenus=[
            {
                "type": "dropdown",
                "x": 0,
                "xanchor": "left",
                "y": 1.02,
                "yanchor": "bottom",
                "pad": {"b": 4},
                "bgcolor": "#ffffff",
                "buttons": [
                    {"label": label, "method": "update", "args": [restyle, relayout]}
                    for label, restyle, relayout in buttons
                ],
            }
        ]
    )


def _curve(
    name: str, rows: pd.DataFrame, axes: Axes, place: int, *, banded: bool
) -> "list[go.Scatter]":
    import plotly.graph_objects as go

    colour = LINES[place % len(LINES)]
    x, y = rows[axes.x].tolist(), _numbers(rows[axes.y])
    traces = []
    has_band = {"low", "high"} <= set(rows) and bool(rows["low"].notna().any())
    if has_band and banded:
        known = rows[rows["low"].notna() & rows["high"].notna()]
        around = known[axes.x].tolist()
        traces.append(
            go.Scatter(
                x=[*around, *around[::-1]],
                y=[*_numbers(known["high"]), *_numbers(known["low"])[::-1]],
                mode="lines",
                fill="toself",
                fillcolor=_faint(colour),
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
                legendgroup=name,
                name=name,
            )
        )
    traces.append(
        go.Scatter(
            x=x,
            y=y,
            mode="lines+markers" if len(x) <= 40 else "lines",
            line={
                "color": colour,
                "width": 2,
                "dash": _DASHES[place // len(LINES) % len(_DASHES)],
            },
            marker={"size": 6, "symbol": _MARKERS[place % len(_MARKERS)]},
            name=name,
            legendgroup=name,
            text=_hover(name, rows, axes),
            hovertemplate="%{text}<extra></extra>",
        )
    )
    return traces


def _hover(name: str, rows: pd.DataFrame, axes: Axes) -> list[str]:
    texts = []
    for row in rows.to_dict("records"):
        text = f"{name}<br>{axes.x_title}: {row[axes.x]}<br>{axes.y_title}: {row[axes.y]:.3g}"
        if pd.notna(row.get("low")) and pd.notna(row.get("high")):
            text += f" [{row['low']:.3g}, {row['high']:.3g}]"
        texts.append(text)
    return texts


def _numbers(values: pd.Series) -> list[float | None]:
    return [None if pd.isna(value) else round(float(value), 5) for value in values]


def _faint(colour: str) -> str:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return f"rgba({red},{green},{blue},0.16)"
