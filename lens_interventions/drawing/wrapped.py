"""A grid of cells as a figure, in which a long text is wrapped into stretches."""

import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from .cell_size import MOST_COLUMNS, CellSize, cell_size, label_extent
from .panel import Panel, draw
from .theme import ThemeName, template
from .titles import LINE, headline, title_block

if TYPE_CHECKING:
    import plotly.graph_objects as go

LEFT, RIGHT = 84, 104  # margins in pixels, for layers and tilted labels, and for the colour bar
_BETWEEN = 26  # pixels between two stretches
_MOST_STRETCHES = 8
_SHORTEST_BAR = 110  # pixels that the ticks of a colour bar need
_LETTER = 7  # pixels of a letter of the rows' title


def stretches(columns: int) -> list[slice]:
    """Consecutive stretches of a long text, about equally long, with cells that have text.

    There is one stretch if the text fits, or if its stretches would make the page too long.
    """
    parts = math.ceil(columns / MOST_COLUMNS)
    if parts > _MOST_STRETCHES:
        parts = 1
    ends = [round(columns * part / parts) for part in range(parts + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(ends)]


def draw_wrapped(
    panel: Panel,
    *,
    title: str,
    reading: Callable[[CellSize], str],
    axis: str,
    theme: ThemeName,
    cell_width: float | None = None,
) -> "go.Figure":
    """A figure of one panel, with all its stretches on one colour scale.

    **Arguments:**

    - `title`: the first line above the panel.
    - `reading`: a function from the cells' size to the line below the title, which explains them.
    - `axis`: the title of the rows.
    - `theme`: `"light"` or `"dark"`.
    - `cell_width`: the cells' width in pixels, for a text that is not wrapped; by default it is
        chosen to fit.

    Raises `ValueError` if the theme is unknown or the cells are too narrow to be seen.
    """
    import plotly.graph_objects as go

    columns = len(panel.inputs)
    parts = stretches(columns) if cell_width is None else [slice(0, columns)]
    longest = max(part.stop - part.start for part in parts)
    size = cell_size(longest, width=cell_width)
    across, down = size.width * longest, size.height * len(panel.rows)
    above, below = label_extent(panel.outputs, size), label_extent(panel.inputs, size)
    step = down + above + below + _BETWEEN
    area = (len(parts) - 1) * step + down
    lines = headline(title, reading(size), LEFT + across + RIGHT)
    top = LINE * len(lines) + above + 20
    height = top + area + below
    figure = go.Figure(layout={"template": template(theme)})
    for number, part in enumerate(parts):
        bottom = area - down - number * step
        y_domain = max(bottom / area, 0.0), min((bottom + down) / area, 1.0)
        length = max(down, _SHORTEST_BAR) / area
        bar = {"x": 1, "xpad": 12, "y": sum(y_domain) / 2, "len": length}
        draw(
            figure,
            panel.stretch(part),
            size=size,
            axis=number,
            x_domain=(0, (part.stop - part.start) / longest),
            y_domain=y_domain,
            bar=bar if number == 0 else None,
        )
    if down >= _LETTER * len(axis):  # otherwise it would be cut
        figure.update_yaxes(title={"text": axis})
    figure.update_layout(
        width=max(LEFT + across + RIGHT, 420),
        height=height,
        margin={"l": LEFT, "r": RIGHT, "t": top, "b": below, "pad": 0},
        title=title_block(lines, height),
        dragmode=False,
    )
    return figure
