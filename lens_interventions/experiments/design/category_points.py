"""Contrasts by category, as points with intervals."""

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from ...drawing.colours import LINES, ZERO_LINE
from ...drawing.error_bars import contrast_hover, error_bars
from ...drawing.labels import markup
from ...drawing.menu import add_menu
from ...drawing.theme import template
from ...drawing.titles import heading
from ...measures.verdicts import JOINT
from .conditions import in_words

if TYPE_CHECKING:
    import plotly.graph_objects as go

_LETTERS = 12  # of a category in one line, so that six have room in the narrowest figure


def category_points(
    views: Mapping[str, pd.DataFrame], *, title: str, x_title: str = "", y_title: str
) -> "go.Figure":
    """The true source minus no patch, and minus all its references, in each category.

    Several tables take turns, and are chosen from a menu of their names. Their rows are contrasts
    with a `category`.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    owner: list[str] = []
    axes: dict[str, dict[str, list]] = {}
    for view, contrasts in views.items():
        rows = in_words(contrasts)
        categories = list(rows["category"].unique())
        axes[view] = {
            "tickvals": list(range(len(categories))),
            "ticktext": [_in_lines(category) for category in categories],
            "range": [-0.5, len(categories) - 0.5],
        }
        for place, minus in enumerate(("none", JOINT)):
            part = rows[rows["minus"] == minus]
            offset = 0.16 * (place - 0.5)
            owner.append(view)
            figure.add_trace(
                go.Scatter(
                    x=[categories.index(category) + offset for category in part["category"]],
                    y=part["estimate"].tolist(),
                    error_y=error_bars(part),
                    mode="markers",
                    marker={
                        "size": 9,
                        "symbol": ("circle", "diamond")[place],
                        "color": LINES[place],
                    },
                    name=f"true − {'no patch' if minus == 'none' else minus}",
                    visible=view == owner[0],
                    customdata=[
                        f"{markup(row['category'])}<br>{contrast_hover(row)}"
                        for row in part.to_dict("records")
                    ],
                    hovertemplate="%{customdata}<extra></extra>",
                )
            )
    figure.add_hline(y=0, line=ZERO_LINE)
    figure.update_layout(
        template=template("light"),
        title=heading(title),
        height=440,
        margin={"l": 60, "r": 16, "t": 84 if len(views) > 1 else 48, "b": 120},
        legend={"orientation": "h", "y": -0.3, "yanchor": "top", "x": 0, "xanchor": "left"},
        xaxis={
            "title": {"text": x_title},
            "tickangle": 0,
            "ticklabeloverflow": "allow",
            **axes[owner[0]],
        },
        yaxis={"title": {"text": y_title}},
    )
    if len(views) > 1:
        add_menu(
            figure,
            [
                (
                    view,
                    {"visible": [of == view for of in owner]},
                    {f"xaxis.{name}": value for name, value in axis.items()},
                )
                for view, axis in axes.items()
            ],
        )
    return figure


def _in_lines(category: str) -> str:
    return "<br>".join(map(markup, textwrap.wrap(category, _LETTERS, break_long_words=False)))
