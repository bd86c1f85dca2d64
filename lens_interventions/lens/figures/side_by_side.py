"""Two trajectories of the same tokens, such as clean and patched, and their difference."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ...drawing.cell_size import CellSize, cell_size, label_extent
from ...drawing.labels import markup, rounded, shorten
from ...drawing.panel import DifferenceScale, Panel, draw
from ...drawing.scales import Scale, cut_off, difference_ticks
from ...drawing.theme import ThemeName, template
from ...drawing.titles import LINE, headline, title_block
from ...drawing.units import RANK, place, unit_title
from ...drawing.wrapped import LEFT, RIGHT
from .grid import Grid
from .heatmap import grid_panel, reading
from .hover import TOKEN_WIDTH

if TYPE_CHECKING:
    import plotly.graph_objects as go

BESIDE = 12  # columns up to which the three panels stand beside each other
_NAME = 26  # pixels for a panel's name
_MOST_DECADES = 3  # of a rank's change, beyond which the colours stop


@dataclass(frozen=True)
class _Box:
    """Where a panel goes, in pixels from the plot area's left and bottom."""

    left: float
    bottom: float


def draw_side_by_side(
    first: Grid,
    second: Grid,
    *,
    names: tuple[str, str],
    title: str | None = None,
    theme: ThemeName = "light",
    cell_width: float | None = None,
) -> "go.Figure":
    """One statistic of two grids on one colour scale, and second minus first.

    Raises `ValueError` if their tokens, points or titles differ.
    """
    import plotly.graph_objects as go

    grids = (first, second)
    _require_same_cells(first, second)
    both = np.concatenate([grid.colour_range for grid in grids])
    scale = first.statistic.scale
    colours = scale.colours(both)
    ticks = scale.ticks(colours, np.concatenate([grid.values for grid in grids]))
    panels = [
        replace(grid_panel(grid, colours=colours, header=f"{markup(name)}: "), ticks=ticks)
        for grid, name in zip(grids, names, strict=True)
    ]
    columns, rows = len(panels[0].inputs), len(panels[0].rows)
    beside = columns <= BESIDE
    size = cell_size(columns * 3 if beside else columns, width=cell_width)
    if beside and cell_width is None:
        size = CellSize(max(size.width, 40.0), 22.0)
    across, down = size.width * columns, size.height * rows
    panels.append(_difference(first, second, names=names, height=down))
    extents = [label_extent(panel.outputs, size) for panel in panels]
    above = _NAME + max(extents)
    if beside:  # names on one line
        extents = [max(extents)] * 3
    below = label_extent(panels[0].inputs, size)
    if beside:
        boxes = [_Box(0, 0), _Box(across + LEFT, 0), _Box(2 * (across + LEFT) + RIGHT, 0)]
    else:
        step = down + above + below
        boxes = [_Box(0, 2 * step), _Box(0, step), _Box(0, 0)]
    area = boxes[2].left + across, boxes[0].bottom + down
    width = LEFT + area[0] + RIGHT
    lines = headline(title or first.title, _reading(first, names, size), width)
    top = LINE * len(lines) + above + 18
    height = top + area[1] + below
    figure = go.Figure(layout={"template": template(theme)})
    titles = (*names, _change_of(names, across + LEFT, letter=9))
    for axis, (panel, box, name, extent) in enumerate(
        zip(panels, boxes, titles, extents, strict=True)
    ):
        x_domain = box.left / area[0], min((box.left + across) / area[0], 1)
        y_domain = box.bottom / area[1], min((box.bottom + down) / area[1], 1)
        bar = {"x": x_domain[1], "xpad": 12, "y": sum(y_domain) / 2, "len": down / area[1]}
        shared = axis == (0 if beside else 1)  # one bar serves the first two
        draw(
            figure,
            panel,
            size=size,
            axis=axis,
            x_domain=x_domain,
            y_domain=y_domain,
            bar=None if shared else bar,
        )
        figure.add_annotation(
            text=f"<b>{markup(name)}</b>",
            x=x_domain[0],
            y=y_domain[1],
            xref="paper",
            yref="paper",
            xanchor="left",
            yanchor="bottom",
            xshift=16 - LEFT,
            yshift=extent,
            showarrow=False,
            font={"size": 14},
        )
    figure.update_layout(
        width=width,
        height=height,
        margin={"l": LEFT, "r": RIGHT, "t": top, "b": below, "pad": 0},
        title=title_block(lines, height),
        dragmode=False,
    )
    return figure


def _require_same_cells(first: Grid, second: Grid) -> None:
    if first.title != second.title:
        raise ValueError(
            f"the two trajectories have different statistics, {first.title!r} and "
            f"{second.title!r}: watch the same token in both, or compare both with the same point"
        )
    if first.points != second.points:
        raise ValueError(
            f"the two trajectories have different points: {list(first.points)} and "
            f"{list(second.points)}"
        )
    if first.tokens != second.tokens:
        raise ValueError(
            "the two trajectories have different tokens, so they cannot be compared "
            f"cell by cell: {''.join(first.inputs)!r} and {''.join(second.inputs)!r}"
        )


def _reading(grid: Grid, names: tuple[str, str], size: CellSize) -> str:
    text = f"The panels {names[0]} and {names[1]} share a colour scale. The third is their "
    if size.font is None:
        text += "difference."
    else:
        text += f"difference, and names the top guess of {names[1]} where it differs."
    if grid.statistic.target == "final":
        text += " Each is held against its own output, so they may differ in any layer below it."
    return f"{text} {reading(grid, size)}"


def _change_of(names: tuple[str, str], room: float, *, letter: float, sign: str = "−") -> str:
    """What the third panel shows, by name if that fits into so many pixels."""
    named = f"{names[1]} {sign} {names[0]}"
    return named if letter * len(named) <= room else f"second {sign} first"


def _difference(first: Grid, second: Grid, *, names: tuple[str, str], height: float) -> Panel:
    scale = first.statistic.scale
    places = place(second.values, scale.unit) - place(first.values, scale.unit)
    limit = _limit(scale, places)
    steps, labels = _ticks(scale, limit)
    changed = tuple(
        tuple(after if after != before else "" for before, after in zip(*pair, strict=True))
        for pair in zip(first.guesses, second.guesses, strict=True)
    )
    lines = (
        f"<b>{markup(name)}: %{{customdata[{i}]}} (guess %{{customdata[{i + 2}]}})</b>"
        for i, name in enumerate(names)
    )
    cell_items = zip(first.values, second.values, first.guesses, second.guesses, strict=True)
    return Panel(
        places=places,
        scale=DifferenceScale(limit),
        ticks=(steps, cut_off(steps, labels, places, -limit, limit)),
        bar_title=_change(scale, names, height),
        texts=changed,
        outlined=np.zeros(places.shape, bool),
        rows=first.rows,
        inputs=first.inputs,
        outputs=("",) * len(first.inputs),
        hover_template="<br>".join(["layer %{y}, %{x}", *lines]) + "<extra></extra>",
        hover_data=[
            [
                [
                    rounded(before),
                    rounded(after),
                    *(markup(shorten(text, TOKEN_WIDTH)) for text in texts),
                ]
                for before, after, *texts in zip(*row, strict=True)
            ]
            for row in cell_items
        ],
    )


def _limit(scale: Scale, places: np.ndarray) -> float:
    changes = np.abs(places[np.isfinite(places)])
    largest = float(changes.max()) if changes.size else 0.0
    if scale.unit == RANK:
        largest = min(max(largest, 1.0), _MOST_DECADES)
    elif scale.low is not None and scale.high is not None:
        largest = min(largest, scale.high - scale.low)
    return largest or 1.0  # no change at all: any scale will do


def _ticks(scale: Scale, limit: float) -> tuple[list[float], list[str]]:
    if scale.unit != RANK:
        return difference_ticks(limit)
    decades = range(-int(limit), int(limit) + 1)
    texts = ["same" if n == 0 else f"{'×' if n > 0 else '÷'}{10 ** abs(n):,}" for n in decades]
    return [float(n) for n in decades], texts


def _change(scale: Scale, names: tuple[str, str], height: float) -> str:
    unit = "1 + rank" if scale.unit == RANK else unit_title(scale.unit)
    sign = "÷" if scale.unit == RANK else "−"
    return markup(f"{unit}, {_change_of(names, height - 7 * len(unit), letter=7, sign=sign)}")
