"""The hover of a cell: its likeliest tokens and every statistic that was computed.

The numbers are stored once per cell and the words around them once per figure, so a figure of 200
tokens and 31 layers takes about one megabyte.
"""

import itertools

import numpy as np

from ...drawing.labels import markup, rounded, shorten
from .grid import Grid

TOKEN_WIDTH = 40
"""Characters of a token in a hover."""


def hover_template(grid: Grid, *, header: str = "") -> str:
    """The text around the numbers of `hover_data`, in plotly's template language."""
    index = itertools.count()

    def places(number: int, between: str) -> str:
        return between.join(f"%{{customdata[{next(index)}]}}" for _ in range(number))

    lines = [f"<b>{header}layer %{{y}}, position {places(1, '')} %{{x}}</b>"]
    lines.append("<br>top guesses (log-prob first)")
    lines += [places(2, " ") for _ in range(grid.log_probs.shape[-1])]
    lines.append("")
    for line in grid.lines:
        numbers = places(1 if line.log_probs is None else 2, ", log-prob ")
        lines.append(f"{markup(line.label)}: {numbers}")
    return "<br>".join(lines) + "<extra></extra>"


def hover_data(grid: Grid) -> list[list[list[float | str]]]:
    """`[row][column][item]`: position, likeliest tokens with their log-probs, every statistic."""
    texts = {text for row in grid.likeliest for column in row for text in column}
    short = {text: markup(shorten(text, TOKEN_WIDTH)) for text in texts}
    parts = [(line.values, line.log_probs) for line in grid.lines]
    statistics = np.stack([part for pair in parts for part in pair if part is not None], axis=-1)
    cell_values = grid.likeliest, grid.log_probs.tolist(), statistics.tolist()
    data: list[list[list[float | str]]] = []
    for row in zip(*cell_values, strict=True):
        data.append([])
        for position, likeliest, log_probs, values in zip(grid.positions, *row, strict=True):
            guesses = zip(map(rounded, log_probs), (short[text] for text in likeliest), strict=True)
            data[-1].append([position, *itertools.chain(*guesses), *map(rounded, values)])
    return data
