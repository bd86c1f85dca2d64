"""Contrasts by category, as points with intervals."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from ...drawing.error_bars import contrast_hover
from ...drawing.grouped_points import grouped_points
from ...drawing.labels import markup
from ...drawing.table_curves import Axes
from ...measures.verdicts import JOINT
from .conditions import in_words

if TYPE_CHECKING:
    import plotly.graph_objects as go

HEADLINE = "Orange diamonds: what the verdict is about."
"""The meaning of points that stand out."""


def category_points(
    views: Mapping[str, pd.DataFrame], *, title: str, x_title: str = "", y_title: str
) -> "go.Figure":
    """The true source minus no patch, and minus all its references, in each category.

    Several tables take turns, and are chosen from a menu of their names. Their rows are contrasts
    with a `category`.
    """
    return grouped_points(
        {view: _points(in_words(contrasts)) for view, contrasts in views.items()},
        Axes("category", "estimate", "difference", x_title, y_title),
        title=title,
    )


def _points(rows: pd.DataFrame) -> pd.DataFrame:
    parts = [rows[rows["minus"] == minus] for minus in ("none", JOINT)]
    found = pd.concat(parts)
    hovers = [
        f"{markup(row['category'])}<br>{contrast_hover(row)}" for row in found.to_dict("records")
    ]
    return found.assign(
        difference="true − " + found["minus"].replace("none", "no patch"), hover=hovers
    )
