"""Figures of the last_word experiment, from its tables."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from ...drawing.colours import LINES
from ...drawing.error_bars import error_bars
from ...drawing.labels import counted, estimate_text
from ...drawing.table_curves import Axes, curves
from ...drawing.theme import template
from ...drawing.titles import heading
from ...lens.figures.over_layers import AXIS
from ...model.points import point_name
from ..engine.results import Figures, Tables

if TYPE_CHECKING:
    import plotly.graph_objects as go


def draw(tables: Tables) -> Figures:
    """The word by layer and part of the sentence, what carries it, and sentences that end in it."""
    influence = tables["influence"].assign(place=tables["influence"]["point"].map(point_name))
    log_prob = influence[influence["measure"] == "log_prob"]
    groups: Any = log_prob.groupby(["sentence", "minus"], sort=False)
    views = {f"{sentence}, minus the request {minus}": rows for (sentence, minus), rows in groups}
    figures = {
        "influence": curves(
            views,
            Axes("place", "estimate", "part", AXIS, "change of log-probability, nats"),
            title="The requested last word along the sentence before it, by the lens",
        ),
        "ends": _ends(tables["ends"], tables["sentences"]),
    }
    if not tables["sources"].empty:  # there are none if all pairs of words differ in their lengths
        figures["sources"] = curves(
            {"": tables["sources"]},
            Axes("layer", "estimate", "where", "layer", "fall of log-probability, nats"),
            title="How much less likely the word is with residuals from a request for another word",
        )
    return figures


def _ends(rows: pd.DataFrame, sentences: pd.DataFrame) -> "go.Figure":
    import plotly.graph_objects as go

    n_of = {name: len(part) for name, part in sentences.groupby("request")}
    figure = go.Figure(
        go.Scatter(
            x=rows["estimate"].tolist(),
            y=[f"{request}, {counted(n_of[request], 'sentence')}" for request in rows["request"]],
            mode="markers",
            marker={"size": 9, "color": LINES[0]},
            error_x=error_bars(rows, thickness=0.7, width=4),
            text=[f"{row['request']}<br>{estimate_text(row)}" for row in rows.to_dict("records")],
            hovertemplate="%{text}<extra></extra>",
        )
    )
    figure.update_layout(
        template=template("light"),
        title=heading("Share of sentences that end in the word"),
        height=240,
        margin={"l": 8, "r": 16, "t": 48, "b": 48},
        xaxis={"tickformat": ".0%", "range": [-0.02, 1.02]},
        yaxis={"automargin": True, "autorange": "reversed"},
    )
    return figure
