"""Curves over the residual points, the first of them at the left."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...drawing.curves import Curve, draw_curves
from ...drawing.labels import percent
from ...drawing.theme import ThemeName
from ...model.points import point_name

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects as go

AXIS = "residual stream entering block"


def draw_over_layers(
    curves: Sequence[Curve],
    *,
    title: str,
    subtitle: str,
    level: float | None = None,
    theme: ThemeName = "light",
) -> "go.Figure":
    """Curves whose places are names of points, such as `input`, `1` and `final`.

    `level` is the confidence of their bands, if these are bootstrap intervals over texts. The
    subtitle then says so, unless no curve has a band, as with a single text.

    Raises `ValueError` if there is no curve, or if the theme is unknown.
    """
    banded = any(curve.low is not None and np.isfinite(curve.low).any() for curve in curves)
    if level is not None and banded:
        subtitle += f" Bands are {percent(level)} bootstrap intervals over texts."
    return draw_curves(
        curves, x_title=AXIS, x_name="layer", title=title, subtitle=subtitle, theme=theme
    )


def table_curve(
    rows: "pandas.DataFrame", *, label: str, unit: str, colour: int, dash: int
) -> Curve:
    """The curve of a table's rows, one for each point: their `mean`, with `low` and `high`."""
    return Curve(
        label=label,
        unit=unit,
        x=[point_name(point) for point in rows["point"]],
        values=rows["mean"].to_numpy(),
        low=rows["low"].to_numpy(),
        high=rows["high"].to_numpy(),
        colour=colour,
        dash=dash,
    )
