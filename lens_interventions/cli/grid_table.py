"""A statistic of a prompt as a coloured table for the terminal."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.style import Style
from rich.text import Text

from ..drawing.colours import DARK_INK, LIGHT_INK, prefers_dark_ink
from ..drawing.labels import rounded
from ..drawing.units import place, unit_title
from ..lens.figures.grid import Grid
from ..model.points import FINAL

_CELL = 9  # characters of a column, one of which separates it from its neighbour
_CORRECT = "*"
_BELOW = "token"  # the name of the row below the layers


class GridTable:
    """Layers by tokens, the last layer first: top guesses on the colours of the statistic.

    If a prompt is wider than the terminal, its last tokens are shown.
    """

    def __init__(self, grid: Grid) -> None:
        """Prepare a grid to be printed by rich."""
        self.grid = grid
        self.colours = grid.statistic.scale.colours(grid.colour_range)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Title, tokens above, a line for each layer, tokens below, and how to read them."""
        grid = self.grid
        margin = max(map(len, (_BELOW, *grid.rows))) + 1
        total = len(grid.inputs)
        columns = range(total - min(total, max(1, (options.max_width - margin) // _CELL)), total)
        # Without colours, the numbers themselves must show the statistic.
        texts = grid.guesses
        if (console.color_system is None or console.no_color) and grid.statistic.name != "top1":
            texts = tuple(
                tuple(str(rounded(value)) for value in row) for row in grid.values.tolist()
            )
        yield Text(grid.title, style="bold")
        yield self._legend()
        yield self._labels("next", [self._output(column) for column in columns], margin)
        yield from self._rows(texts, columns, margin)
        yield self._labels(_BELOW, [grid.inputs[column] for column in columns], margin)
        reading = []
        if FINAL in grid.points:
            reading.append(f"{_CORRECT} the model's guess was right")
        if console.color_system is not None:  # otherwise nothing is underlined
            reading.append("underlined: already the final guess")
        shown = [f"the last {len(columns)} of {total} tokens (--out shows all)"]
        parts = [*(shown if len(columns) < total else []), "; ".join(reading)]
        if said := ". ".join(filter(None, parts)):
            yield Text(said, style="dim")

    def _legend(self) -> Text:
        places, labels = self.grid.statistic.scale.ticks(self.colours, self.grid.values)
        legend = Text(f"{unit_title(self.grid.statistic.unit)}: ", style="dim", no_wrap=True)
        for colour, label in zip(self.colours.rgb(np.array(places)), labels, strict=True):
            legend.append(f" {label} ", _painted(colour))
        return legend

    def _output(self, column: int) -> str:
        return (_CORRECT if self.grid.correct[column] else "") + self.grid.outputs[column]

    def _rows(
        self, texts: tuple[tuple[str, ...], ...], columns: range, margin: int
    ) -> Iterator[Text]:
        grid = self.grid
        rgb = self.colours.rgb(place(grid.values, grid.statistic.unit))
        empty = np.isnan(grid.values)
        for row in reversed(range(len(grid.rows))):
            line = Text(grid.rows[row].rjust(margin - 1) + " ", no_wrap=True, end="\n")
            for column in columns:
                paint = Style() if empty[row, column] else _painted(rgb[row, column])
                cell = _fitted(texts[row][column], _CELL - 1)
                guess = cell.rstrip()
                line.append(guess, paint + Style(underline=bool(grid.agrees[row, column])))
                line.append(cell[len(guess) :], paint)
                line.append(" ")
            yield line

    def _labels(self, name: str, texts: list[str], margin: int) -> Text:
        cells = "".join(_fitted(text, _CELL - 1) + " " for text in texts)
        return Text(f"{name:>{margin - 1}} {cells}", style="bold", no_wrap=True)


def _painted(rgb: UInt8[np.ndarray, "3"]) -> Style:
    red, green, blue = rgb.tolist()
    ink = DARK_INK if prefers_dark_ink(rgb) else LIGHT_INK
    return Style(color=ink, bgcolor=f"rgb({red},{green},{blue})", dim=False)


def _fitted(text: str, width: int) -> str:
    """`text` in exactly `width` terminal cells; some characters take two cells."""
    if cell_len(text) > width:
        return set_cell_size(text, width - 1) + "…"
    return set_cell_size(text, width)
