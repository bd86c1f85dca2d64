"""A menu above the plot, which switches between views of one figure."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .labels import markup
from .theme import THEMES

if TYPE_CHECKING:
    import plotly.graph_objects as go


_VIEWS = "views"


def add_menu(
    figure: "go.Figure", entries: Sequence[tuple[str, dict[str, Any], dict[str, Any]]]
) -> None:
    """Add a menu of (label, restyle, relayout); the first entry is shown first."""
    figure.update_layout(
        updatemenus=[
            {
                "name": _VIEWS,
                "type": "dropdown",
                "x": 0,
                "xanchor": "left",
                "y": 1.02,
                "yanchor": "bottom",
                "pad": {"b": 4},
                # Light in every theme, because plotly's colour of the active entry is.
                "bgcolor": THEMES["light"].paper,
                "font": {"color": THEMES["light"].text},
                "buttons": [
                    {"label": markup(label), "method": "update", "args": [restyle, relayout]}
                    for label, restyle, relayout in entries
                ],
            }
        ]
    )


def without_menu(figure: "go.Figure") -> "go.Figure":
    """The figure for an image: the name of the view that it shows stands in place of the menu.

    Only a menu made by `add_menu` is replaced.
    """
    if [menu.name for menu in figure.layout.updatemenus] != [_VIEWS]:
        return figure
    (menu,) = figure.layout.updatemenus
    shown = copy.deepcopy(figure)
    shown.layout.updatemenus = ()
    shown.add_annotation(
        text=menu.buttons[menu.active or 0].label,
        showarrow=False,
        align="left",
        **{
            name: value
            for name, value in menu.to_plotly_json().items()
            if name in ("x", "xanchor", "y", "yanchor")
        },
        xref="paper",
        yref="paper",
    )
    return shown
