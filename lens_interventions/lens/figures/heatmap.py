"""The post's figures: layers by tokens, a colour for the statistic, the top guess in each cell."""

from typing import TYPE_CHECKING

from ...drawing.colours import ColourScale
from ...drawing.panel import CellSize, Panel, cell_size, draw, label_extent, stretches
from ...drawing.theme import ThemeName, template
from ...drawing.titles import LINE, headline, title_block
from ...drawing.units import place, unit_title
from .grid import Grid
from .hover import hover_data, hover_template
from .over_layers import AXIS

if TYPE_CHECKING:
    import plotly.graph_objects as go

CORRECT = "(*)"
HIDDEN = "The cells are too narrow to write each layer's top guess in them."
_BETWEEN = 26  # pixels between two stretches of a text
LEFT, RIGHT = 84, 104  # margins in pixels, for layers and tilted labels, and for the colour bar


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
    import plotly.graph_objects as go

    whole = grid_panel(grid)
    columns = len(whole.inputs)
    parts = stretches(columns) if cell_width is None else [slice(0, columns)]
    panels = [whole.stretch(part) for part in parts]
    longest = max(len(panel.inputs) for panel in panels)
    size = cell_size(longest, width=cell_width)
    across, down = size.width * longest, size.height * len(whole.rows)
    above, below = label_extent(whole.outputs, size), label_extent(whole.inputs, size)
    step = down + above + below + _BETWEEN
    area = (len(panels) - 1) * step + down
    lines = headline(title or grid.title, reading(size), LEFT + across + RIGHT)
    top = LINE * len(lines) + above + 20
    height = top + area + below
    figure = go.Figure(layout={"template": template(theme)})
    for number, panel in enumerate(panels):
        bottom = area - down - number * step
        y_domain = max(bottom / area, 0.0), min((bottom + down) / area, 1.0)
        # One bar serves all.
        bar = {"x": 1, "xpad": 12, "y": sum(y_domain) / 2, "len": down / area}
        draw(
            figure,
            panel,
            size=size,
            axis=number,
            x_domain=(0, len(panel.inputs) / longest),
            y_domain=y_domain,
            bar=bar if number == 0 else None,
        )
    figure.update_yaxes(title={"text": AXIS})
    figure.update_layout(
        width=max(LEFT + across + RIGHT, 420),
        height=height,
        margin={"l": LEFT, "r": RIGHT, "t": top, "b": below, "pad": 0},
        title=title_block(lines, height),
        dragmode=False,
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
        return f"{tokens} {HIDDEN} Outlined where the layer's top guess is also the final one."
    return f"{tokens} In each cell the layer's top guess, outlined where it is also the final one."
