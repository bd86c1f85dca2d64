"""Figures of the upbringing experiment, from its tables."""

from typing import TYPE_CHECKING

import pandas as pd

from ...drawing.table_curves import Axes, curves
from ...lens.figures.over_layers import AXIS
from ...model.points import FINAL, point_name
from ..design.text_scopes import ALL, COPYABLE, OTHER
from ..engine.results import Figures, Tables
from .evaluation import KL, LOSS, RECOVERED, RIGHT

if TYPE_CHECKING:
    import plotly.graph_objects as go

_SPREAD = "(band: seeds)"


def draw(tables: Tables) -> Figures:
    """What each layer says and how far it is from the output, the input there, and the losses."""
    layers = tables["layers"].rename(columns={"lowest": "low", "highest": "high"})
    layers = layers.assign(place=layers["point"].map(point_name))
    return {
        "kl": _divergence(layers),
        "layers": _layers(layers),
        "recovered": curves(
            {"": layers[layers["measure"] == RECOVERED]},
            Axes("place", "mean", "arm", AXIS, "share of tokens recovered"),
            title=f"The input token, recovered from the stream of small networks {_SPREAD}",
        ),
        "curves": _curves(tables["curves"]),
    }


def _divergence(layers: pd.DataFrame) -> "go.Figure":
    # At the output it is 0, which a logarithm has no place for.
    shown = (layers["measure"] == KL) & (layers["scope"] == ALL) & (layers["point"] != FINAL)
    return curves(
        {"": layers[shown]},
        Axes("place", "mean", "arm", AXIS, "KL(final ‖ layer), nats", {"type": "log", "dtick": 1}),
        title=f"How far the layers of small networks are from the output {_SPREAD}",
    )


def _layers(layers: pd.DataFrame) -> "go.Figure":
    of_all = layers[layers["scope"] == ALL]
    titles = {
        "loss of the layer's guess": "nats a token",
        "share of top guesses that are right": "share of tokens",
    }
    parts = (of_all[of_all["measure"] == measure] for measure in (LOSS, RIGHT))
    return curves(
        dict(zip(titles, parts, strict=True)),
        Axes("place", "mean", "arm", AXIS, titles),
        title=f"Small networks read through their own unembedding {_SPREAD}",
    )


def _curves(rows: pd.DataFrame) -> "go.Figure":
    rows = rows.rename(columns={"lowest": "low", "highest": "high"})
    losses = rows[rows["measure"] == LOSS]
    views = {f"loss on {s} tokens": losses[losses["scope"] == s] for s in (ALL, COPYABLE, OTHER)}
    views["KL(final ‖ middle)"] = rows[(rows["measure"] == KL) & (rows["scope"] == ALL)]
    return curves(
        views,
        Axes("step", "mean", "arm", "steps", "nats a token"),
        title=f"Held-out loss while small networks are trained, by arm {_SPREAD}",
    )
