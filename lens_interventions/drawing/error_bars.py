"""Intervals as error bars, from the rows of a table."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from .colours import EITHER_INK, LINES, ZERO_LINE
from .labels import estimate_text, markup
from .theme import ThemeName, template
from .titles import LINE, heading

if TYPE_CHECKING:
    import plotly.graph_objects as go

OVER_TEXTS = "Bars are 95% bootstrap intervals over texts."


def error_bars(
    rows: pd.DataFrame,
    value: str = "estimate",
    low: str = "low",
    high: str = "high",
    **style: Any,
) -> dict[str, Any]:
    """`error_x` or `error_y` of a trace, from the columns with the value and its ends."""
    return {
        "type": "data",
        "symmetric": False,
        # Some kinds of interval do not contain the estimate to the last digit.
        "array": (rows[high] - rows[value]).clip(lower=0).tolist(),
        "arrayminus": (rows[value] - rows[low]).clip(lower=0).tolist(),
        **style,
    }


def contrast_points(
    rows: pd.DataFrame, *, labels: Sequence[str], hover: Sequence[str], **options: Any
) -> "go.Scatter":
    """Estimates as points with their intervals, with one row of the figure for each.

    `rows` have the columns estimate, low and high; those whose column `headline` is true, if there
    is one, stand out. `options` are further options of the trace.
    """
    import plotly.graph_objects as go

    headline = rows["headline"] if "headline" in rows else [False] * len(rows)
    return go.Scatter(
        x=rows["estimate"].tolist(),
        y=[markup(label) for label in labels],
        error_x=error_bars(rows, color=EITHER_INK),
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


def draw_contrasts(
    rows: pd.DataFrame,
    *,
    labels: Sequence[str],
    title: str,
    subtitle: str = "",
    x_title: str,
    theme: ThemeName = "light",
) -> "go.Figure":
    """A figure of `contrast_points` around a line at 0, which name themselves under the mouse."""
    import plotly.graph_objects as go

    hover = [
        interval_hover(label, row)
        for label, row in zip(labels, rows.to_dict("records"), strict=True)
    ]
    figure = go.Figure(contrast_points(rows, labels=labels, hover=hover))
    figure.add_vline(x=0, line=ZERO_LINE)
    figure.update_layout(
        template=template(theme),
        # Long labels leave a title too little room beside them.
        title={**heading(markup(title), subtitle), "xref": "container", "pad": {"t": 12, "l": 16}},
        height=130 + (LINE if subtitle else 0) + 26 * len(rows),
        margin={
            "l": _label_width(labels),
            "r": 16,
            "t": 60 + (LINE if subtitle else 0),
            "b": 50,
        },
        xaxis={"title": {"text": x_title}},
        yaxis={"autorange": "reversed", "type": "category"},
    )
    return figure


def _label_width(labels: Sequence[str]) -> int:
    """Pixels that leave room for the labels, unless they are very long."""
    return min(40 + 7 * max(map(len, labels), default=0), 480)


def subtracted(row: Mapping[Any, Any]) -> str:
    """What a row of a contrast subtracts, in words."""
    return "no patch" if row["minus"] == "none" else str(row["minus"])


def interval_hover(name: str, row: Mapping[Any, Any]) -> str:
    """A name, and the estimate with its interval."""
    return f"{markup(name)}<br>{estimate_text(row)}, n = {row['n']}"


def contrast_hover(row: Mapping[Any, Any]) -> str:
    """A row of a contrast with its p-values."""
    named = interval_hover(f"{row['source']} minus {subtracted(row)}", row)
    return f"{named}<br>p = {row['p_value']:.2g}, {row['p_holm']:.2g} after Holm"
