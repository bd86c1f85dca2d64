"""Curves from the rows of tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from .curves import Curve, draw_views
from .theme import ThemeName

if TYPE_CHECKING:
    import plotly.graph_objects as go

# More bands than this would hide each other.
_BANDS = 4
_SOME_BANDS = "Only the first two curves have bands; hover over a point for its interval."


@dataclass(frozen=True)
class Axes:
    """The columns that are drawn, and the titles of the axes.

    Attributes:
        x, y: the columns of the curves' points; `low` and `high`, if the table has them, are the
            band.
        group: the column that separates the curves; its values are their names.
        x_title, y_title: the titles of the axes; `y_title` may be one for each view, by its name.
        y_layout: further options of the y axis, as plotly takes them.
    """

    x: str
    y: str
    group: str
    x_title: str
    y_title: str | Mapping[str, str]
    y_layout: Mapping[str, Any] | None = None


def curves(
    views: Mapping[str, pd.DataFrame],
    axes: Axes,
    *,
    title: str = "",
    subtitle: str = "",
    theme: ThemeName = "light",
) -> "go.Figure":
    """One curve per group; several tables take turns, and are chosen from a menu of their names.

    Rows keep their order. The views may differ in their groups. If a view has more than four
    curves, only the first two have bands; the hover shows the intervals of the others.

    Raises `ValueError` for an unknown theme.
    """
    names = [name for rows in views.values() for name in rows[axes.group].unique()]
    order = {name: place for place, name in enumerate(dict.fromkeys(names))}
    drawn = {}
    some_bands = False
    for view, rows in views.items():
        groups = list(rows.groupby(axes.group, sort=False))
        some_bands |= len(groups) > _BANDS and _has_band(rows)
        drawn[view] = [
            _curve(
                name,
                part,
                axes,
                unit=axes.y_title if isinstance(axes.y_title, str) else axes.y_title[view],
                place=order[name],
                banded=len(groups) <= _BANDS or number < 2,
            )
            for number, (name, part) in enumerate(groups)
        ]
    return draw_views(
        drawn,
        x_title=axes.x_title,
        title=title,
        subtitle=" ".join([subtitle, *([_SOME_BANDS] * some_bands)]).strip(),
        y_layout=axes.y_layout,
        theme=theme,
    )


def _curve(
    name: Any, rows: pd.DataFrame, axes: Axes, *, unit: str, place: int, banded: bool
) -> Curve:
    has_band = _has_band(rows)
    return Curve(
        label=str(name),
        unit=unit,
        x=rows[axes.x].tolist(),
        values=rows[axes.y].to_numpy(float),
        low=rows["low"].to_numpy(float) if has_band else None,
        high=rows["high"].to_numpy(float) if has_band else None,
        colour=place,
        # So that 24 curves differ, of six colours and four dashes.
        dash=place + place // 12,
        banded=banded,
    )


def _has_band(rows: pd.DataFrame) -> bool:
    return {"low", "high"} <= set(rows) and bool(rows["low"].notna().any())
