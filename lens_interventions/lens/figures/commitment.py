"""The layer from which the final guess stays: a bar for each token."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...drawing.cell_size import cell_size, label_extent, short_labels
from ...drawing.colours import LINES
from ...drawing.labels import markup, shorten
from ...drawing.scales import thinned
from ...drawing.theme import ThemeName, template
from ...drawing.titles import LINE, headline, title_block
from ...drawing.wrapped import LEFT
from .hover import TOKEN_WIDTH
from .over_layers import AXIS

if TYPE_CHECKING:
    import plotly.graph_objects as go

_RIGHT = 24
_HEIGHT = 300  # pixels of the plot area
_MOST_TICKS = 12


def draw_commitment(
    rows: Sequence[str],
    first: Sequence[int],
    *,
    positions: Sequence[int],
    inputs: Sequence[str],
    guesses: Sequence[str],
    criterion: str,
    theme: ThemeName = "light",
) -> "go.Figure":
    """Bars up to the row from which the final guess stays; a cross where it never does.

    **Arguments:**

    - `rows`: names of the residual points, the first at the bottom.
    - `first`: an index into them for each token; -1 where the final guess does not stay.
    - `positions`, `inputs`, `guesses`: the place of each token, its text and the final guess.
    - `criterion`: the criterion by which the final guess stays, in words.
    - `theme`: `"light"` or `"dark"`.

    Raises `ValueError` if the theme is unknown or there is no token.
    """
    import plotly.graph_objects as go

    if not inputs:
        raise ValueError("there is no position to show: the range of positions holds no token")
    size = cell_size(len(inputs))
    width = max(420.0, LEFT + size.width * len(inputs) + _RIGHT)
    reading = "Below: the tokens. Above: the final guesses. A short bar: settled early."
    if min(first) < 0:
        reading += " A cross: not even at the output."
    lines = headline(f"Layer from which the final guess stays {criterion}", reading, width)
    above = LINE * len(lines) + label_extent(tuple(guesses), size) + 20
    below = label_extent(tuple(inputs), size)
    height = above + _HEIGHT + below
    names = ["never" if i < 0 else rows[i] for i in first]
    cells = zip(positions, inputs, guesses, names, strict=True)
    told = [
        f"position {position} {markup(shorten(token, TOKEN_WIDTH))}<br>final guess "
        f"{markup(shorten(guess, TOKEN_WIDTH))}<br>from layer: {name}"
        for position, token, guess, name in cells
    ]
    figure = go.Figure(_traces(first, told, top=len(rows) - 1), {"template": template(theme)})
    ticks = thinned(len(rows), _MOST_TICKS)
    tokens = {
        "tickmode": "array",
        "tickvals": list(range(len(inputs))),
        "tickangle": -45,
        "tickfont": {"size": size.label_font},
        "range": [-0.5, len(inputs) - 0.5],
        "showgrid": False,
    }
    figure.update_layout(
        width=width,
        height=height,
        margin={"l": LEFT, "r": _RIGHT, "t": above, "b": below, "pad": 0},
        title=title_block(lines, height),
        dragmode=False,
        bargap=0.25,
        xaxis={**tokens, "ticktext": short_labels(inputs), "side": "bottom", "anchor": "y"},
        xaxis2={
            **tokens,
            "ticktext": short_labels(guesses),
            "overlaying": "x",
            "matches": "x",
            "side": "top",
            "anchor": "y",
        },
        yaxis={
            "title": {"text": AXIS},
            "tickvals": ticks,
            "ticktext": [rows[i] for i in ticks],
            "range": [-1, len(rows) - 0.4],
        },
    )
    return figure


def _traces(first: Sequence[int], told: Sequence[str], *, top: int) -> "list[go.Bar | go.Scatter]":
    """The bars, and the crosses of the columns that never settle, at the height `top`."""
    import plotly.graph_objects as go

    never = [column for column, i in enumerate(first) if i < 0]
    hover = {"hovertemplate": "%{text}<extra></extra>", "showlegend": False}
    bars = go.Bar(
        x=list(range(len(first))),
        y=[None if i < 0 else i + 1 for i in first],
        base=-1,  # so that the input, row 0, has a bar of its own height
        marker_color=LINES[0],
        text=told,
        textposition="none",
        **hover,
    )
    crosses = go.Scatter(
        x=never,
        y=[top] * len(never),
        xaxis="x2",
        mode="markers",
        marker={"symbol": "x-thin", "size": 9, "line": {"width": 2, "color": LINES[1]}},
        text=[told[column] for column in never],
        **hover,
    )
    return [bars, crosses]
