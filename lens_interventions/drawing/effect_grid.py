"""Effects by layer and strength, with a panel for each mode and a menu of measures."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from .colours import PALETTES, colorscale
from .menu import add_menu
from .theme import template
from .titles import heading

if TYPE_CHECKING:
    import plotly.graph_objects as go

SIGNIFICANT = 0.05

# Pixels above the panels, part of which the names of the modes take, and below them.
_ABOVE, _MODES, _BELOW = 136, 28, 50


def effect_heatmaps(table: pd.DataFrame, *, title: str, bars: Mapping[str, str]) -> "go.Figure":
    """Heat maps of `estimate` by layer and strength.

    The table has the columns measure, layer, strength, mode, estimate, low, high, p_value and
    p_holm. A star marks cells whose adjusted p-value is below 0.05. White is no effect; each
    measure has its own scale. `bars` has the title of the scale for each measure.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    modes, measures = list(table["mode"].unique()), list(table["measure"].unique())
    figure = make_subplots(
        rows=1, cols=len(modes), subplot_titles=modes, shared_yaxes=True, horizontal_spacing=0.03
    )
    owner = []
    for measure in measures:
        rows = table[table["measure"] == measure]
        largest = float(rows["estimate"].abs().max()) or 1.0
        for place, mode in enumerate(modes):
            part = rows[rows["mode"] == mode]
            grid = part.pivot(index="layer", columns="strength", values="estimate")
            texts = part.assign(text=[_cell(row) for row in part.to_dict("records")])
            hover = part.assign(text=[_hover(row) for row in part.to_dict("records")])
            figure.add_trace(
                go.Heatmap(
                    x=[f"{strength:g}" for strength in grid.columns],
                    y=[str(layer) for layer in grid.index],
                    z=grid.to_numpy().tolist(),
                    zmin=-largest,
                    zmax=largest,
                    colorscale=colorscale(PALETTES["difference-light"]),
                    text=_pivot(texts),
                    texttemplate="%{text}",
                    textfont={"size": 11},
                    customdata=_pivot(hover),
                    hovertemplate="%{customdata}<extra></extra>",
                    showscale=place == len(modes) - 1,
                    colorbar={"thickness": 10, "len": 0.9, "title": {"text": bars[measure]}},
                    visible=measure == measures[0],
                    xgap=1,
                    ygap=1,
                ),
                row=1,
                col=place + 1,
            )
            owner.append(measure)
    figure.update_xaxes(type="category", title={"text": "strength"}, showgrid=False)
    figure.update_yaxes(type="category", showgrid=False)
    figure.update_yaxes(title={"text": "layer"}, col=1)
    # On its own line, because plotly cuts text that is wider than the figure.
    star = f"* p &lt; {SIGNIFICANT} after Holm's correction over the grid"
    panel_height = 60 + 34 * table["layer"].nunique()
    figure.update_layout(
        template=template("light"),
        title=heading(title, star),
        height=panel_height + _ABOVE + _BELOW,
        margin={"l": 60, "r": 16, "t": _ABOVE, "b": _BELOW},
    )
    if len(measures) > 1:
        add_menu(figure, owner, {measure: {} for measure in measures})
        figure.update_layout(updatemenus=[{"y": 1 + _MODES / panel_height}])
    return figure


def _pivot(rows: pd.DataFrame) -> list[list[str]]:
    return (
        rows.pivot(index="layer", columns="strength", values="text").fillna("").to_numpy().tolist()
    )


def _cell(row: dict) -> str:
    return f"{row['estimate']:.2g}".replace("-", "−") + ("*" if row["p_holm"] < SIGNIFICANT else "")


def _hover(row: dict) -> str:
    return (
        f"layer {row['layer']}, {row['mode']} {row['strength']:g}<br>{row['estimate']:.3g} "
        f"[{row['low']:.3g}, {row['high']:.3g}]<br>p = {row['p_value']:.3g}, "
        f"{row['p_holm']:.3g} after Holm"
    )
