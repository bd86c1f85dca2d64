"""Figures of the likeliest experiment, from its tables."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from ...drawing.colours import LINES
from ...drawing.error_bars import error_bars
from ...drawing.menu import add_menu
from ...drawing.theme import template
from ...drawing.titles import heading
from ..engine.results import Figures, Tables

if TYPE_CHECKING:
    import plotly.graph_objects as go


def draw(tables: Tables) -> Figures:
    """Log-likelihood per token, and loops, of each way to look for a sequence."""
    ways = tables["ways"]
    loops = ways.assign(estimate=ways["loop_share"], low=ways["loop_low"], high=ways["loop_high"])
    return {
        "likelihood": _by_length(
            ways,
            "Who finds the likeliest sequence",
            {"title": {"text": "log-likelihood, nats per token"}},
        ),
        "loops": _by_length(
            loops,
            "Sequences that end in a loop",
            {"title": {"text": "share"}, "range": [-0.02, 1.02], "tickformat": ".0%"},
        ),
    }


def _by_length(ways: pd.DataFrame, title: str, x_axis: dict[str, Any]) -> "go.Figure":
    """A row for each way; the lengths take turns. `x_axis` is as plotly takes it."""
    import plotly.graph_objects as go

    lengths = list(ways["length"].unique())[::-1]
    traces = []
    for length in lengths:
        rows = ways[ways["length"] == length].iloc[::-1]
        traces.append(
            go.Scatter(
                x=rows["estimate"].tolist(),
                y=rows["way"].tolist(),
                mode="markers",
                name=f"{length} tokens",
                visible=length == lengths[0],
                marker={"size": 9, "color": LINES[0]},
                error_x=error_bars(rows, thickness=0.7, width=4),
                text=[_describe(row) for row in rows.to_dict("records")],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    figure = go.Figure(traces)
    figure.update_layout(
        template=template("light"),
        title=heading(title),
        height=140 + 34 * int(ways["way"].nunique()),
        margin={"l": 8, "r": 16, "t": 84, "b": 56},
        showlegend=False,
        xaxis=x_axis,
        yaxis={"automargin": True},
    )
    names = [trace.name for trace in traces]
    add_menu(figure, names, {name: {} for name in names})
    return figure


def _describe(row: dict) -> str:
    return (
        f"{row['way']}, {row['length']} tokens, {row['evaluations']} forward tokens<br>"
        f"{row['estimate']:.3f} [{row['low']:.3f}, {row['high']:.3f}], n = {row['n']}<br>"
        f"likeliest on {row['wins']:.0%} of prompts; {row['loop_share']:.0%} loop; "
        f"rep-2 {row['rep_2']:.2f}, rep-4 {row['rep_4']:.2f}"
    )
