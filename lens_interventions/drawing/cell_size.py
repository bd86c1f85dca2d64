"""The size of a panel's cells, and the text that fits into and beside them."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from .labels import markup, shorten

_LABEL_WIDTH = 16  # characters of a token beside the axes
_LABEL_FONT, _SMALL_LABEL_FONT = 12, 10
_TEXT_CELL = 34  # pixels; narrower cells have no text
_FIGURE_WIDTH = 1240  # pixels that the cells of a figure share
MOST_COLUMNS = 48  # columns up to which cells have text, however wide the figure becomes


@dataclass(frozen=True)
class CellSize:
    """The width and height of a cell in pixels."""

    width: float
    height: float

    @property
    def font(self) -> float | None:
        """Size of the text in a cell; None if no text fits."""
        return None if self.width < _TEXT_CELL else min(12.0, 7 + self.width / 16)

    @property
    def characters(self) -> int:
        """How many characters fit into a cell."""
        return int(self.width / (0.6 * (self.font or self.width)))

    @property
    def label_font(self) -> int:
        """Size of the tokens beside the axes, which are tilted and so need the cell's width."""
        return _LABEL_FONT if self.width >= 22 else _SMALL_LABEL_FONT


def cell_size(columns: int, *, width: float | None = None) -> CellSize:
    """A size at which `columns` cells can be read, with text while they fit a figure's width.

    Raises `ValueError` if `width` leaves nothing to see.
    """
    if width is None:
        width = min(64.0, _FIGURE_WIDTH / columns)
        if columns <= MOST_COLUMNS:
            width = max(width, 40.0)
        width = max(width, 17.0)
    elif width < 2:
        raise ValueError(f"cells must be at least 2 pixels wide, got {width}")
    return CellSize(width, 22.0 if width >= _TEXT_CELL else 16.0)


def label_extent(labels: tuple[str, ...], size: CellSize) -> float:
    """Pixels that tilted labels take beside their axis, in either direction."""
    longest = max((_columns(shorten(label, _LABEL_WIDTH)) for label in labels), default=0)
    return 0.71 * (0.6 * size.label_font * longest) + 14


def short_labels(texts: Sequence[str]) -> list[str]:
    """Tokens cut to the width that is beside an axis, as plotly takes them."""
    return [markup(shorten(text, _LABEL_WIDTH)) for text in texts]


def _columns(text: str) -> int:
    """How many Latin letters are as wide as a text."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
