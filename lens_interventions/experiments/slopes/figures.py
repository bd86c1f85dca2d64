"""Figures of the slopes experiment, from its tables."""

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from ...drawing.colours import LINES
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
    import plotly.graph_objects as go

    layers = tuple(sorted(int(layer) for layer in cells["layer"].unique()))
    sources = tuple(dict.fromkeys(cells["source"]))
    materials = tuple(dict.fromkeys(cells["material"]))
    panels = []
    for material in materials:
        here: dict[tuple[int, str], dict[str, Any]] = {
            (int(row["layer"]), str(row["source"])): row
            for row in cells[cells["material"] == material].to_dict("records")
        }
        panels.append(
            LayerPanel(
                title=str(material).replace("_", " "),
                layers=layers,
                columns=tuple(source.replace("_", " ") for source in sources),
                values=tuple(
                    tuple(float(here[layer, source]["change"]) for source in sources)
                    for layer in layers
                ),
                hover=tuple(
                    tuple(_hover(here[layer, source]) for source in sources) for layer in layers
                ),
            )
        )
    figure = layer_heatmaps(
        panels,
        title="Change of the loss at each write's best strength, as predicted",
        unit="nats per token",
    )
    tried = cells[cells["measured_estimate"].notna()]
    for name, symbol, confirmed in (
        ("patched runs confirm a gain", "circle", True),
        ("patched runs show none", "x-thin", False),
    ):
        marked = tried[(tried["measured_high"] < 0) == confirmed]
        named = next(iter(marked["material"]), None)
        for place, material in enumerate(materials):
            of = marked[marked["material"] == material]
            axis = "" if place == 0 else str(place + 1)
            figure.add_trace(
                go.Scatter(
                    x=[source.replace("_", " ") for source in of["source"]],
                    y=[str(layer) for layer in of["layer"]],
                    xaxis=f"x{axis}",
                    yaxis=f"y{axis}",
                    mode="markers",
                    marker={"symbol": symbol, "size": 11, "color": "black", "line_width": 2},
                    name=name,
                    legendgroup=name,
                    showlegend=bool(material == named),
                    hoverinfo="skip",
                )
            )
    return figure.update_layout(
        width=max(_WIDE, figure.layout.width),
        legend={"orientation": "h", "x": 0, "y": -0.3, "yanchor": "top"},
        margin_b=150,
        height=figure.layout.height + 60,
    )


def _hover(row: dict[str, Any]) -> str:
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
    symbols = ("circle", "square", "diamond", "cross", "x", "star")
    sources = list(dict.fromkeys(shown["source"]))
    for number, (material, of) in enumerate(shown.groupby("material", sort=False)):
        figure.add_trace(
            go.Scatter(
                x=of["predicted"],
                y=of["estimate"],
                error_y={
                    "array": of["high"] - of["estimate"],
                    "arrayminus": of["estimate"] - of["low"],
                },
                mode="markers",
                marker={
                    "size": 9,
                    "color": LINES[number % len(LINES)],
                    "symbol": [
                        symbols[sources.index(source) % len(symbols)] for source in of["source"]
                    ],
                },
                name=str(material).replace("_", " "),
                customdata=[
                    f"{source}, layer {layer}, strength {strength:.3g}".replace("_", " ")
                    for source, layer, strength in zip(
                        of["source"], of["layer"], of["strength"], strict=True
                    )
                ],
                hovertemplate="%{customdata}<br>predicted %{x:.3g}, measured %{y:.3g}"
                "<extra></extra>",
            )
        )
    return figure.update_layout(
        title=heading("Change of the loss: predicted on one half, measured on the other"),
        xaxis_title="predicted from slope and curvature, nats",
        yaxis_title="patched minus no patch, nats",
        template=template("light"),
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
