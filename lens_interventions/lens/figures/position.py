"""One position through the layers: how the ranks of its tokens and its divergences develop."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...drawing.curves import Curve
from ...drawing.labels import shorten
from ...drawing.theme import ThemeName
from .grid import Grid
from .hover import TOKEN_WIDTH
from .over_layers import draw_over_layers

if TYPE_CHECKING:
    import plotly.graph_objects as go


def draw_position(
    grids: Sequence[Grid], column: int, *, title: str | None = None, theme: ThemeName = "light"
) -> "go.Figure":
    """One column of several grids of the same prompt, a line for each.

    Raises `ValueError` if the theme is unknown, or if there is no grid.
    """
    if not grids:
        raise ValueError("there is nothing to draw: give at least one statistic")
    alone = len({grid.statistic.name for grid in grids}) == 1
    curves: list[Curve] = []
    for grid in grids:
        unit = grid.statistic.unit
        among = sum(curve.unit == unit for curve in curves)
        curves.append(
            Curve(
                label=_label(grid, alone),
                unit=unit,
                x=grid.rows,
                values=grid.values[:, column],
                notes=[f"top guess: {shorten(row[column], TOKEN_WIDTH)}" for row in grid.guesses],
                # One legend serves all panels.
                colour=len(curves),
                dash=among,
            )
        )
    first = grids[0]
    heading = f"Position {first.positions[column]}: {first.inputs[column]}"
    if following := first.outputs[column]:
        heading += f", followed by {following}"
    return draw_over_layers(
        curves,
        title=title or heading,
        subtitle="A layer's distribution over the next token, at one position.",
        theme=theme,
    )


def _label(grid: Grid, alone: bool) -> str:
    """The grid's title; the watched token, where all curves are of watched tokens."""
    before, named, _ = grid.statistic.title.partition("{token}")
    return grid.title.removeprefix(before) if alone and named else grid.title
