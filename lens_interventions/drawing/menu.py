"""A menu above the plot, which switches between views of one figure."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .theme import THEMES

if TYPE_CHECKING:
    import plotly.graph_objects as go


def add_menu(
    figure: "go.Figure", entries: Sequence[tuple[str, dict[str, Any], dict[str, Any]]]
) -> None:
    """Add a menu of (label, restyle, relayout); the first entry is shown first."""
    figure.update_layout(
        updatemenus=[
            {
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
                    {"label": label, "method": "update", "args": [restyle, relayout]}
                    for label, restyle, relayout in entries
                ],
            }
        ]
    )


def without_menu(figure: "go.Figure") -> "go.Figure":
    """The figure as a picture shows it: the name of its view, where others have been to choose."""
    if not figure.layout.updatemenus:
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
