"""Light and dark, as plotly templates: a page switches a figure by replacing its template."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .colours import LINES, PALETTES, colorscale

if TYPE_CHECKING:
    import plotly.graph_objects as go

ThemeName = Literal["light", "dark"]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
MONO = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


@dataclass(frozen=True)
class Theme:
    """Colours of everything but the data.

    Attributes:
        paper: behind the figure.
        plot: behind the data, seen where a cell has no value.
        text: of titles and labels.
        grid: lines behind curves.
        difference: name of the palette for differences, whose middle is near `paper`.
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

    Raises `ValueError` if there is none of that name.
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
            # A figure's only colour axis is that of a difference, whose colours the theme decides.
            "coloraxis": {"colorscale": colorscale(PALETTES[theme.difference])},
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {
                "bgcolor": theme.paper,
                "bordercolor": theme.text,
                "font": {"family": MONO, "size": 12, "color": theme.text},
                "align": "left",
            },
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": theme.grid},
        }
    )
