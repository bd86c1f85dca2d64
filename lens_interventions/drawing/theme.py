"""Light and dark plotly templates; a page switches a figure by replacing its template."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from .colours import EITHER_INK, LINES, PALETTES, colorscale

if TYPE_CHECKING:
    import plotly.graph_objects as go

ThemeName = Literal["light", "dark"]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
MONO = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


@dataclass(frozen=True)
class Theme:
    """Colours of everything except the data.

    Attributes:
        paper: behind the figure.
        plot: the colour behind the data, visible where a cell has no value.
        text: the colour of titles and labels.
        grid: the colour of lines behind curves.
        difference: the name of the palette for differences, whose middle is close to `paper`.
    """

    paper: str
    plot: str
    text: str
    grid: str
    difference: str


THEMES: dict[str, Theme] = {
    "light": Theme("#ffffff", "#f3f4f6", "#1c2026", "#dcdfe4", "difference-light"),
    "dark": Theme("#14171c", "#1d2127", "#e6e8eb", "#363c45", "difference-dark"),
}


def get_theme(name: str) -> Theme:
    """A theme by its name.

    Raises `ValueError` if there is no theme of that name.
    """
    if name not in THEMES:
        raise ValueError(f"unknown theme {name!r}; there are {list(THEMES)}")
    return THEMES[name]


def template(name: ThemeName) -> "go.layout.Template":
    """The theme as a plotly template."""
    import plotly.graph_objects as go

    theme = get_theme(name)
    axis = {
        "gridcolor": theme.grid,
        "linecolor": theme.grid,
        "zerolinecolor": theme.grid,
        "zeroline": False,
        "showgrid": True,
        "ticks": "",
        "title": {"font": {"size": 13}},
    }
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 12, "color": theme.text},
            "paper_bgcolor": theme.paper,
            "plot_bgcolor": theme.plot,
            "colorway": list(LINES),
            # Only differences use a figure's colour axis, so the theme decides its colours.
            "coloraxis": {"colorscale": colorscale(PALETTES[theme.difference])},
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {
                "bgcolor": theme.paper,
                "bordercolor": theme.text,
                "font": {"family": MONO, "size": 12, "color": theme.text},
                "align": "left",
            },
            "modebar": {
                "bgcolor": "rgba(0,0,0,0)",
                "color": EITHER_INK,
                "activecolor": theme.text,
            },
        }
    )


def templates() -> dict[str, dict[str, Any]]:
    """The template of each theme as JSON values, for a page that changes between them."""
    return {name: template(name).to_plotly_json() for name in get_args(ThemeName)}
