"""Figures of the slopes experiment, from its tables."""

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from ...drawing.colours import LINES
from ...drawing.error_bars import error_bars
from ...drawing.labels import markup
from ...drawing.layer_heatmaps import LayerPanel, layer_heatmaps
from ...drawing.table_curves import Axes, curves
from ...drawing.theme import template
from ...drawing.titles import heading
from ..engine.results import Figures, Tables
from .ceiling import draw_ceiling
from .heads import draw_heads
from .rescue import draw_rescue

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Wide enough for the name of a material over its panel.
_WIDE = 860

# Changes of the loss from which the map tells them in numbers.
_TOLD = 0.001

_SYMBOLS = ("circle", "square", "diamond", "cross", "x", "star")


def draw(tables: Tables) -> Figures:
    """The map of predicted gains, its grounds, and what of a write could be read or learned."""
    return {
        "gain": _gain(tables["predictions"]),
        "predicted": _predicted(tables["patched"]),
        "slopes": _slopes(tables["slopes"]),
        "rescue": draw_rescue(tables["rescue"]),
        "heads": draw_heads(tables["heads"]),
        "ceiling": draw_ceiling(tables["ceiling"]),
    }


def _gain(cells: pd.DataFrame) -> "go.Figure":
    panels = [
        LayerPanel.of(
            rows,
            "source",
            title=str(material).replace("_", " "),
            value="change",
            hover=_hover,
            text=_mark,
        )
        for material, rows in cells.groupby("material", sort=False)
    ]
    figure = layer_heatmaps(
        panels,
        title="Predicted change of the loss by a write of the best strength (below 0 is better)",
        unit="nats per token",
        below="By slope and curvature. ✓ patched runs on other texts gain, ✗ they do not.",
    )
    return figure.update_layout(width=max(_WIDE, figure.layout.width))


def _mark(row: dict[Any, Any]) -> str:
    """What a cell says: the change, where there is one, and whether patched runs confirm it."""
    change = f"{row['change']:.2g}".replace("-", "−") if row["change"] <= -_TOLD else ""
    if math.isnan(row["measured_estimate"]):
        return change
    return f"{change} {'✓' if row['measured_high'] < 0 else '✗'}".strip()


def _hover(row: dict[Any, Any]) -> str:
    said = (
        f"layer {row['layer']}, {row['source'].replace('_', ' ')}<br>"
        f"slope {row['slope']:.3g}, curvature {row['curvature']:.3g}<br>"
        f"best strength {row['strength']:.3g}: {row['change']:+.3g} nats predicted"
    )
    if math.isnan(row["measured_estimate"]):
        return said
    return said + (
        f"<br>patched on other texts: {row['measured_estimate']:+.3g} "
        f"[{row['measured_low']:+.3g}, {row['measured_high']:+.3g}]"
    )


def _predicted(patched: pd.DataFrame) -> "go.Figure":
    import plotly.graph_objects as go

    shown = patched[patched["minus"] == "no patch"]
    figure = go.Figure()
    reach = [float(shown["predicted"].min()), float(shown["predicted"].max())]
    figure.add_trace(
        go.Scatter(
            x=reach,
            y=reach,
            mode="lines",
            line={"dash": "dot", "color": "grey"},
            name="as predicted",
            hoverinfo="skip",
        )
    )
    materials, sources = (list(dict.fromkeys(shown[name])) for name in ("material", "source"))
    for (material, source), of in shown.groupby(["material", "source"], sort=False):
        figure.add_trace(
            go.Scatter(
                x=of["predicted"],
                y=of["estimate"],
                error_y=error_bars(of, thickness=1),
                mode="markers",
                marker={
                    "size": 9,
                    "color": LINES[materials.index(material) % len(LINES)],
                    "symbol": _SYMBOLS[sources.index(source) % len(_SYMBOLS)],
                },
                name=markup(f"{material}, {source}".replace("_", " ")),
                customdata=[
                    f"layer {layer}, strength {strength:.3g}"
                    for layer, strength in zip(of["layer"], of["strength"], strict=True)
                ],
                hovertemplate="%{customdata}<br>predicted %{x:.3g}, measured %{y:.3g}",
            )
        )
    return figure.update_layout(
        title=heading("Change of the loss: predicted on one half, measured on the other"),
        xaxis_title="predicted from slope and curvature, nats",
        yaxis_title="patched minus no patch, nats",
        template=template("light"),
        width=_WIDE,
        height=520,
    )


def _slopes(grid: pd.DataFrame) -> "go.Figure":
    views = {}
    for (material, mode), here in grid.groupby(["material", "mode"], sort=False):
        name = f"{str(material).replace('_', ' ')}, {mode}"
        alone = here[here["minus"] == ""]
        views[name] = alone.assign(curve=alone["source"].str.replace("_", " "))
        against = here[here["minus"] != ""]
        views[f"{name}: true minus control"] = against.assign(
            curve=against["minus"].str.replace("_", " ")
        )
    views = {
        name: rows.assign(first=rows["curve"] != "true")
        .sort_values(["first", "curve", "layer"])
        .drop(columns="first")
        for name, rows in views.items()
    }
    return curves(
        views,
        Axes("layer", "estimate", "curve", "layer", "nats per unit of strength"),
        title="Slope of the loss in the strength of a write (below 0: a weak one helps)",
    )
