"""Contrasts as points with intervals, the headline apart from the rest."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from .colours import LINES
from .intervals import error_bars

if TYPE_CHECKING:
    import plotly.graph_objects as go


def contrast_points(
    rows: pd.DataFrame, *, labels: Sequence[str], hover: Sequence[str], **options: Any
) -> "go.Scatter":
    """Estimates from left to right with their intervals, a label each.

    `rows` have `estimate`, `low`, `high` and `minus`; what is not minus "none" is the headline.
    `options` are others of the trace.
    """
    import plotly.graph_objects as go

    headline = rows["minus"] != "none"
    return go.Scatter(
        x=rows["estimate"].tolist(),
        y=list(labels),
        error_x=error_bars(rows, color="#8a8f98"),
        mode="markers",
        marker={
            "size": 9,
            "color": [LINES[1] if top else LINES[0] for top in headline],
            "symbol": ["diamond" if top else "circle" for top in headline],
        },
        customdata=list(hover),
        hovertemplate="%{customdata}<extra></extra>",
        showlegend=False,
        **options,
    )
