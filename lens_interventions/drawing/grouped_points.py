"""Estimates at named places with their intervals, those of several groups side by side."""

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from .colours import LINES, ZERO_LINE
from .error_bars import error_bars
from .labels import markup
from .menu import add_menu
from .table_curves import Axes
from .theme import template
from .titles import wrapped_heading

if TYPE_CHECKING:
    import plotly.graph_objects as go

_LETTERS = 12  # of a place in one line, so that six have room in the narrowest figure
_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x", "triangle-down")
_BESIDE = 0.16  # places between two groups, if they are few
_SPREAD = 0.64  # places that all groups take at most


def grouped_points(
    views: Mapping[str, pd.DataFrame], axes: Axes, *, title: str, subtitle: str = ""
) -> "go.Figure":
    """A point for each row, around a line at 0; several tables take turns, chosen from a menu.

    `axes.x` is a column of names. The rows also have the columns low, high and hover, which is the
    markup that is shown at the point. Places and groups are in the order of the rows.
    """
    import plotly.graph_objects as go

    groups = list(dict.fromkeys(name for rows in views.values() for name in rows[axes.group]))
    beside = min(_BESIDE, _SPREAD / len(groups)) if groups else 0.0
    figure, first = go.Figure(), next(iter(views))
    owner: list[str] = []
    places_of: dict[str, dict[str, Any]] = {}
    for view, rows in views.items():
        places = list(rows[axes.x].unique())
        places_of[view] = {
            "tickvals": list(range(len(places))),
            "ticktext": [_in_lines(place) for place in places],
            "range": [-0.5, len(places) - 0.5],
        }
        for number, (group, part) in enumerate(rows.groupby(axes.group, sort=False)):
            offset = beside * (number - (rows[axes.group].nunique() - 1) / 2)
            place = groups.index(group)
            owner.append(view)
            figure.add_trace(
                go.Scatter(
                    x=[places.index(name) + offset for name in part[axes.x]],
                    y=part[axes.y].tolist(),
                    error_y=error_bars(part, axes.y),
                    mode="markers",
                    marker={
                        "size": 9,
                        "symbol": _SYMBOLS[place % len(_SYMBOLS)],
                        "color": LINES[place % len(LINES)],
                    },
                    name=markup(str(group)),
                    visible=view == first,
                    customdata=part["hover"].tolist(),
                    hovertemplate="%{customdata}<extra></extra>",
                )
            )
    figure.add_hline(y=0, line=ZERO_LINE)
    titles, below = wrapped_heading(title, subtitle)
    figure.update_layout(
        template=template("light"),
        title=titles,
        height=440 + below,
        margin={"l": 60, "r": 16, "t": (84 if len(views) > 1 else 48) + below, "b": 120},
        legend={"orientation": "h", "y": -0.3, "yanchor": "top", "x": 0, "xanchor": "left"},
        xaxis={
            "title": {"text": axes.x_title},
            "tickangle": 0,
            "ticklabeloverflow": "allow",
            **places_of[first],
        },
        yaxis={"title": {"text": axes.y_title}},
    )
    if len(views) > 1:
        changes = {
            view: {f"xaxis.{name}": value for name, value in axis.items()}
            for view, axis in places_of.items()
        }
        add_menu(figure, owner, changes)
    return figure


def _in_lines(name: str) -> str:
    return "<br>".join(map(markup, textwrap.wrap(name, _LETTERS, break_long_words=False)))
