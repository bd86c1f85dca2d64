"""The post's figures: layers by tokens, a colour for the statistic, the top guess in each cell."""

import functools
from typing import TYPE_CHECKING

from ...drawing.cell_size import CellSize
from ...drawing.colours import ColourScale
from ...drawing.panel import Panel
from ...drawing.theme import ThemeName
from ...drawing.units import place, unit_title
from ...drawing.wrapped import draw_wrapped
from ...model.points import FINAL
from .grid import Grid
from .hover import hover_data, hover_template
from .over_layers import AXIS

if TYPE_CHECKING:
    import plotly.graph_objects as go

CORRECT = "(*)"


def draw_heatmap(
    grid: Grid,
    *,
    title: str | None = None,
    theme: ThemeName = "light",
    cell_width: float | None = None,
) -> "go.Figure":
    """A statistic over layers and tokens, the last layer at the top.

    A long text is wrapped into stretches, one below the other, on one colour scale. `title` is the
    statistic's own; with a `cell_width` the text is not wrapped.

    Raises `ValueError` if the theme is unknown or the cells are too narrow to be seen.
    """
    return draw_wrapped(
        grid_panel(grid),
        title=title or grid.title,
        reading=functools.partial(reading, grid),
        axis=AXIS,
        theme=theme,
        cell_width=cell_width,
    )


def grid_panel(grid: Grid, *, colours: ColourScale | None = None, header: str = "") -> Panel:
    """What a grid looks like; by default with its own colours."""
    scale = grid.statistic.scale
    colours = colours or scale.colours(grid.colour_range)
    marks = [f"{CORRECT} " if correct else "" for correct in grid.correct]
    return Panel(
        places=place(grid.values, scale.unit),
        scale=colours,
        ticks=scale.ticks(colours, grid.values),
        bar_title=unit_title(scale.unit),
        texts=grid.guesses,
        outlined=grid.agrees,
        rows=grid.rows,
        inputs=grid.inputs,
        outputs=tuple(mark + text for mark, text in zip(marks, grid.outputs, strict=True)),
        hover_template=hover_template(grid, header=header),
        hover_data=hover_data(grid),
    )


def reading(grid: Grid, size: CellSize) -> str:
    """How to read the heat map of a grid whose cells have this size."""
    tokens = "The input tokens are below, and those that followed are above"
    tokens += f", with {CORRECT} where the model was right." if FINAL in grid.points else "."
    # Layers differ in the length of the residual, so bright is not sure here.
    colour = ""
    if grid.statistic.unit == "logit":
        colour = " Colours are logits: compare them within a row."
    if size.font is None:
        return (
            f"{tokens} The cells are too narrow to write each layer's top guess in them. A cell is "
            f"outlined where that is also the final guess.{colour}"
        )
    return (
        f"{tokens} A cell shows the layer's top guess, outlined where it is also the final "
        f"one.{colour}"
    )
