"""The post's figures: layers by tokens, a colour for the statistic, the top guess in each cell."""

from typing import TYPE_CHECKING

from ...drawing.colours import ColourScale
from ...drawing.panel import CellSize, Panel, cell_size, draw, label_extent
from ...drawing.theme import ThemeName, template
from ...drawing.titles import LINE, headline, title_block
from ..trajectory import Trajectory
from .grid import Grid, make_grid
from .hover import hover_data, hover_template

if TYPE_CHECKING:
    import plotly.graph_objects as go

CORRECT = "(*)"
LEFT, RIGHT = 84, 104  # margins in pixels, for layers and tilted labels, and for the colour bar


def plot(
    trajectory: Trajectory,
    statistic: str = "top1",
    *,
    batch: int = 0,
    every: int | None = None,
    include_input: bool | None = None,
    token: str | int | None = None,
    title: str | None = None,
    theme: ThemeName = "light",
    cell_width: float | None = None,
) -> "go.Figure":
    """A statistic over layers and tokens, as in "interpreting GPT: the logit lens".

    Input tokens are below, the tokens that followed above, with `(*)` where the model's own top
    guess was right. The last layer is at the top. A cell shows its layer's top guess, outlined
    where that is also the final guess, and over it appear the likeliest tokens and all statistics.
    Ranks are zero-based (0 is the top guess) on a logarithmic colour scale; divergences and
    entropies are in nats; log-probs are natural. Colours stop at rank 100 (1000 of an input, next
    or watched token), at a divergence of 30 and at a log-prob of -20.

    **Arguments:**

    - `statistic`: `"top1"` (coloured by the guess's logit) or the name of a statistic of
        `Trajectory` such as `"final_rank"`, `"kl_input"`, `"entropy"`, `"watched_rank"`.
    - `batch`: which prompt.
    - `every`: keep every n-th layer, and always the last; by default as many as make at most 32.
    - `include_input`: show the input's row; by default for divergences and what the input
        token gets.
    - `token`: which watched token, as id or text; the first by default.
    - `title`: instead of the statistic's own.
    - `theme`: `"light"` or `"dark"`.
    - `cell_width`: in pixels. By default as fits: below 34 pixels cells have no text.

    Raises `ValueError` for what the trajectory does not have.
    """
    import plotly.graph_objects as go

    grid = make_grid(
        trajectory, statistic, batch=batch, every=every, include_input=include_input, token=token
    )
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
        yaxis_title={"text": "residual stream entering block"},
    )
    return figure


def grid_panel(grid: Grid, *, colours: ColourScale | None = None, header: str = "") -> Panel:
    """What a grid looks like; by default with its own colours."""
    colours = colours or grid.scale.colours(grid.colour_range)
    marks = [f"{CORRECT} " if correct else "" for correct in grid.correct]
    return Panel(
        places=grid.scale.position(grid.values),
        scale=colours,
        ticks=grid.scale.ticks(colours, grid.values),
        bar_title=grid.scale.unit_title,
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
