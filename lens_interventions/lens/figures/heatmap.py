"""The post's figures: layers by tokens, a colour for the statistic, the top guess in each cell."""

from typing import TYPE_CHECKING

from ...drawing.colours import ColourScale
from ...drawing.panel import CellSize, Panel, cell_size, draw, label_extent
from ...drawing.theme import ThemeName, template
from ...drawing.titles import LINE, headline, title_block
from ...drawing.units import place, unit_title
from .grid import Grid
from .hover import hover_data, hover_template
from .over_layers import AXIS

if TYPE_CHECKING:
    import plotly.graph_objects as go

CORRECT = "(*)"
LEFT, RIGHT = 84, 104  # margins in pixels, for layers and tilted labels, and for the colour bar


def draw_heatmap(
    grid: Grid,
    *,
    title: str | None = None,
    theme: ThemeName = "light",
    cell_width: float | None = None,
) -> "go.Figure":
    """A statistic over layers and tokens, the last layer at the top.

    `title` is the statistic's own, `cell_width` what fits unless given.

    Raises `ValueError` if the theme is unknown or the cells are too narrow to be seen.
    """
    import plotly.graph_objects as go

    panel = grid_panel(grid)
    size = cell_size(len(panel.inputs), width=cell_width)
    width = LEFT + size.width * len(panel.inputs) + RIGHT
    lines = headline(title or grid.title, reading(size), width)
    above = LINE * len(lines) + label_extent(panel.outputs, size) + 20
    below = label_extent(panel.inputs, size)
    height = above + size.height * len(panel.rows) + below
    figure = go.Figure(layout={"template": template(theme)})
    draw(
        figure,
        panel,
        size=size,
        axis=0,
        x_domain=(0, 1),
        y_domain=(0, 1),
        bar={"x": 1, "xpad": 12, "y": 0.5, "len": 1},
    )
    figure.update_layout(
        width=max(width, 420),
        height=height,
        margin={"l": LEFT, "r": RIGHT, "t": above, "b": below, "pad": 0},
        title=title_block(lines, height),
        dragmode=False,
        yaxis_title={"text": AXIS},
    )
    return figure


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


def reading(size: CellSize) -> str:
    """How to read a figure whose cells have this size."""
    tokens = (
        f"Below the input tokens, above those that followed, {CORRECT} where the model was right."
    )
    if size.font is None:
        return f"{tokens} Outlined where the layer's top guess is also the final one."
    return f"{tokens} In each cell the layer's top guess, outlined where it is also the final one."
