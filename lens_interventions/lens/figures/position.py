"""One position through the layers: how the ranks of its tokens and its divergences develop."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...drawing.curves import Curve, draw_curves
from ...drawing.labels import markup, rounded, shorten
from ...drawing.theme import ThemeName
from ...drawing.units import place
from .grid import Grid

if TYPE_CHECKING:
    import plotly.graph_objects as go


def draw_position(
    grids: Sequence[Grid], column: int, *, title: str | None = None, theme: ThemeName = "light"
) -> "go.Figure":
    """One column of several grids of the same prompt, a line for each.

    Raises `ValueError` for an unknown theme.
    """
    curves: list[Curve] = []
    for grid in grids:
        unit, values = grid.statistic.unit, grid.values[:, column]
        among = sum(curve.unit == unit for curve in curves)
        curves.append(
            Curve(
                label=grid.title,
                unit=unit,
                values=place(values, unit),
                hover=[
                    f"layer {row}, {markup(grid.title)}: {rounded(value)}<br>"
                    f"top guess: {markup(shorten(guesses[column], 40))}"
                    for row, value, guesses in zip(
                        grid.rows, values.tolist(), grid.guesses, strict=True
                    )
                ],
                colour=among,
                dash=among,
            )
        )
    first = grids[0]
    heading = f"Position {first.positions[column]}: {first.inputs[column]}"
    if following := first.outputs[column]:
        heading += f", followed by {following}"
    return draw_curves(
        curves,
        first.rows,
        title=title or heading,
        subtitle="A layer's distribution over the next token, at one position.",
        theme=theme,
    )
