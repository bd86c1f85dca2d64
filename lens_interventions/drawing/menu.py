"""A menu above the plot, which switches between views of one figure."""

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .labels import markup
from .theme import THEMES

if TYPE_CHECKING:
    import plotly.graph_objects as go


_VIEWS = "views"


def add_menu(
    figure: "go.Figure", owner: Sequence[str], views: Mapping[str, Mapping[str, Any]]
) -> None:
    """Add a menu of views by their names, of which the first is shown first.

    `owner` has the name of each trace's view, and `views` what a view changes in the layout, as
    plotly takes it.
    """
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
                    {
                        "label": markup(view),
                        "method": "update",
                        "args": [{"visible": [of == view for of in owner]}, layout],
                    }
                    for view, layout in views.items()
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
