"""Curves over the residual points, the first of them at the left."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...drawing.curves import Curve, draw_curves
from ...drawing.theme import ThemeName

if TYPE_CHECKING:
    import plotly.graph_objects as go

AXIS = "residual stream entering block"


def draw_over_layers(
    curves: Sequence[Curve], *, title: str, subtitle: str, theme: ThemeName = "light"
) -> "go.Figure":
    """Curves whose places are names of points, such as `input`, `1` and `final`.

    Raises `ValueError` if there is no curve, or if the theme is unknown.
    """
    return draw_curves(
        curves, x_title=AXIS, x_name="layer", title=title, subtitle=subtitle, theme=theme
    )
