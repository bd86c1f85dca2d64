"""A grid of coloured cells with tokens on both sides, the building block of heat maps."""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from .cell_size import CellSize, short_labels
from .colours import DARK_INK, EITHER_INK, LIGHT_INK, ColourScale, colorscale, prefers_dark_ink
from .labels import markup, shorten

if TYPE_CHECKING:
    import plotly.graph_objects as go

_OUTLINE = 0.44  # half the side of an outline, in cells


@dataclass(frozen=True)
class DifferenceScale:
    """A scale from `-limit` to `limit` in the template's colours, on which its text can be read.

    A figure of differences changes its theme if only its template is replaced.
    """

    limit: float


@dataclass(frozen=True)
class Panel:
    """A grid of cells, with every label as it will appear.

    Attributes:
        places: `[row, column]`, the place of each value on `scale`; NaN leaves the cell empty.
        scale: the colours of the places.
        ticks: places and texts of the colour bar's ticks.
        bar_title: the title of the colour bar.
        texts: `[row][column]`, the text in each cell.
        outlined: `[row, column]`.
        rows: labels from the bottom up.
        inputs: labels below the columns.
        outputs: labels above the columns; empty texts for none.
        hover_template: the hover of a cell, in plotly's template language.
        hover_data: `[row][column][item]`, the values that the template shows.
    """

    places: Float[np.ndarray, "row column"]
    scale: ColourScale | DifferenceScale
    ticks: tuple[list[float], list[str]]
    bar_title: str
    texts: tuple[tuple[str, ...], ...]
    outlined: Bool[np.ndarray, "row column"]
    rows: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    hover_template: str
    hover_data: list

    def stretch(self, columns: slice) -> "Panel":
        """Only some consecutive columns, with the same colours."""
        return replace(
            self,
            places=self.places[:, columns],
            texts=tuple(row[columns] for row in self.texts),
            outlined=self.outlined[:, columns],
            inputs=self.inputs[columns],
            outputs=self.outputs[columns],
            hover_data=[row[columns] for row in self.hover_data],
        )


def draw(
    figure: "go.Figure",
    panel: Panel,
    *,
    size: CellSize,
    axis: int,
    x_domain: tuple[float, float],
    y_domain: tuple[float, float],
    bar: dict[str, Any] | None,
) -> None:
    """Add a panel to a figure.

    Its columns are the numbers 0, 1, ... with tokens as tick texts, so repeated tokens stay
    separate columns. `axis` counts panels from 0 and numbers their axes: `x`, `x2` (above) and `y`
    for the first. `bar` places the colour bar; None for none.
    """
    import plotly.graph_objects as go

    x, top, y = _axis(2 * axis + 1), _axis(2 * axis + 2), _axis(axis + 1)
    colours = _colour_options(panel, bar)
    if isinstance(panel.scale, DifferenceScale):
        if bar is not None:
            figure.update_layout(coloraxis=colours)
        colours = {"coloraxis": "coloraxis"}
    figure.add_trace(
        go.Heatmap(
            z=[_numbers(row) for row in panel.places],
            xaxis=f"x{x}",
            yaxis=f"y{y}",
            **colours,
            xgap=1 if size.width > 8 else 0,
            ygap=1,
            customdata=panel.hover_data,
            hovertemplate=panel.hover_template,
            hoverongaps=True,
        )
    )
    # An invisible point, because plotly draws an axis only if a trace uses it.
    figure.add_trace(
        go.Scatter(
            x=[0],
            y=[0],
            xaxis=f"x{top}",
            yaxis=f"y{y}",
            mode="markers",
            marker_opacity=0,
            hoverinfo="skip",
            showlegend=False,
        )
    )
    for ink, chosen in _inks(panel).items():
        _draw_outlines(figure, panel.outlined & chosen, ink, f"x{x}", f"y{y}")
        if size.font is not None:
            _draw_texts(figure, panel, chosen, ink, size, f"x{x}", f"y{y}")
    columns, rows = len(panel.inputs), len(panel.rows)
    shared = {
        "tickmode": "array",
        "tickvals": list(range(columns)),
        "tickangle": -45,
        "tickfont": {"size": size.label_font},
        "range": [-0.5, columns - 0.5],
        "showgrid": False,
        "domain": x_domain,
        "ticklabelstandoff": 2,
    }
    figure.update_layout(
        {
            f"xaxis{x}": {
                **shared,
                "ticktext": short_labels(panel.inputs),
                "anchor": f"y{y}",
                "side": "bottom",
            },
            f"xaxis{top}": {
                **shared,
                "ticktext": short_labels(panel.outputs),
                "anchor": f"y{y}",
                "overlaying": f"x{x}",
                "matches": f"x{x}",
                "side": "top",
            },
            f"yaxis{y}": {
                "tickmode": "array",
                "tickvals": list(range(rows)),
                "ticktext": list(panel.rows),
                "tickfont": {"size": 11},
                "range": [-0.5, rows - 0.5],
                "showgrid": False,
                "domain": y_domain,
                "anchor": f"x{x}",
                "ticklabelstandoff": 4,
            },
        }
    )


def _axis(number: int) -> str:
    return "" if number == 1 else str(number)


def _colour_options(panel: Panel, bar: dict[str, Any] | None) -> dict[str, Any]:
    """The options of colour for a heat map or its colour axis."""
    scale, (places, texts) = panel.scale, panel.ticks
    options: dict[str, Any] = {
        "showscale": bar is not None,
        "colorbar": {
            "title": {"text": panel.bar_title, "side": "right"},
            "tickvals": places,
            "ticktext": texts,
            "thickness": 14,
            "outlinewidth": 0,
            "ypad": 0,
            **(bar or {}),
        },
    }
    if isinstance(scale, DifferenceScale):
        return options | {"cmin": -scale.limit, "cmax": scale.limit}
    high = scale.high if scale.high > scale.low else scale.low + 1
    return options | {"zmin": scale.low, "zmax": high, "colorscale": colorscale(scale.stops)}


def _inks(panel: Panel) -> dict[str | None, Bool[np.ndarray, "row column"]]:
    """The cells with text in each ink; None is the template's ink, on the template's colours."""
    empty = np.isnan(panel.places)
    if isinstance(panel.scale, DifferenceScale):
        return {None: np.ones_like(empty)}
    dark = prefers_dark_ink(panel.scale.rgb(panel.places))
    return {DARK_INK: dark & ~empty, LIGHT_INK: ~dark & ~empty, None: empty}


def _draw_outlines(
    figure: "go.Figure", cells: Bool[np.ndarray, "row column"], ink: str | None, x: str, y: str
) -> None:
    """All outlines of one ink as a single line, broken between cells."""
    import plotly.graph_objects as go

    if not cells.any():
        return
    row, column = np.nonzero(cells)
    corners = _OUTLINE * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1], [np.nan, np.nan]])
    figure.add_trace(
        go.Scatter(
            x=_numbers((column[:, None] + corners[:, 0]).ravel()),
            y=_numbers((row[:, None] + corners[:, 1]).ravel()),
            xaxis=x,
            yaxis=y,
            mode="lines",
            line={"color": ink or EITHER_INK, "width": 1.6},
            hoverinfo="skip",
            showlegend=False,
            name="outline",
        )
    )


def _numbers(values: Float[np.ndarray, " value"]) -> list[float | None]:
    return [None if math.isnan(value) else float(f"{value:.6g}") for value in values.tolist()]


def _draw_texts(
    figure: "go.Figure",
    panel: Panel,
    cells: Bool[np.ndarray, "row column"],
    ink: str | None,
    size: CellSize,
    x: str,
    y: str,
) -> None:
    import plotly.graph_objects as go

    places = [(r, c) for r, c in np.argwhere(cells).tolist() if panel.texts[r][c]]
    if not places:
        return
    font = {"size": size.font} | ({"color": ink} if ink else {})
    figure.add_trace(
        go.Scatter(
            x=[column for _, column in places],
            y=[row for row, _ in places],
            xaxis=x,
            yaxis=y,
            mode="text",
            text=[markup(shorten(panel.texts[r][c], size.characters)) for r, c in places],
            textfont=font,
            hoverinfo="skip",
            showlegend=False,
            name="guesses",
        )
    )
