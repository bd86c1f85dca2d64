"""Figures of the reader experiment, from its tables."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from ...drawing.error_bars import contrast_points
from ...drawing.table_curves import Axes, curves
from ...drawing.theme import template
from ...drawing.titles import heading
from ...measures.verdicts import JOINT
from ..engine.results import Figures, Tables
from .measurements import AS_TRAINED, UNTRAINED
from .settings import ALONE

if TYPE_CHECKING:
    import plotly.graph_objects as go

_NAMES = {ALONE: "no write", JOINT: "the best of the others"}


def draw(tables: Tables) -> Figures:
    """What the true token gains over each control by kind of text, and losses on the way."""
    rows = tables["curves"]
    named = rows.assign(reader=rows["source"].replace(_NAMES))
    return {
        "gain": _gain(tables["contrasts"]),
        "curves": curves(
            {"": named},
            Axes("step", "loss", "reader", "steps", "loss, nats a token"),
            title="Held-out loss while readers adapt, by what is written (band: seeds)",
        ),
    }


def _gain(contrasts: pd.DataFrame) -> "go.Figure":
    """The reader with the true token minus each other, and minus the best of the others."""
    import plotly.graph_objects as go

    shown = contrasts[(contrasts["minus"] != UNTRAINED) & (contrasts["condition"] == AS_TRAINED)]
    names = shown["scope"] + ": true − " + shown["minus"].replace(_NAMES)
    marked = shown["minus"].where(shown["minus"] == JOINT, "none")
    figure = go.Figure(
        contrast_points(
            shown.assign(minus=marked),
            labels=names.tolist(),
            hover=[_hover(row) for row in shown.assign(name=names).to_dict("records")],
        )
    )
    figure.add_vline(x=0, line={"width": 1, "dash": "dot"})
    figure.update_layout(
        template=template("light"),
        title=heading("A reader with the true token, minus others"),
        height=130 + 26 * len(shown),
        margin={"l": 280, "r": 16, "t": 60, "b": 50},
        xaxis={"title": {"text": "change of the loss, nats a token (below 0 is better)"}},
        yaxis={"autorange": "reversed", "type": "category"},
    )
    return figure


def _hover(row: dict[Any, Any]) -> str:
    interval = f"{row['estimate']:.3g} [{row['low']:.3g}, {row['high']:.3g}]"
    return f"{row['name']}<br>{interval}, n = {row['n']}"
