"""Colour scales that colour-blind readers can use, and ink that can be read on them.

Viridis, cividis and magma are matplotlib's, perceptually uniform and safe for the common kinds of
colour blindness (Smith & van der Walt 2015; Nuñez, Anderton & Renslow 2018); `RdBu` is
ColorBrewer's. Between its stops a scale is linear in RGB, as plotly draws it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

PALETTES: dict[str, tuple[str, ...]] = {
    "viridis": (
        *("#440154", "#482878", "#3e4989", "#31688e", "#26828e"),
        *("#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"),
    ),
    "cividis": (
        *("#00224e", "#123570", "#3b496c", "#575d6d", "#707173"),
        *("#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"),
    ),
    # Without its two ends, which would look like the black and white of the page.
    "magma": (
        *("#180f3d", "#440f76", "#721f81", "#9e2f7f", "#cd4071"),
        *("#f1605d", "#fd9668", "#feca8d"),
    ),
    # On both, the theme's own text has a contrast of at least 4.5 everywhere.
    "difference-light": ("#67a9cf", "#d1e5f0", "#f7f7f7", "#fddbc7", "#ef8a62"),
    "difference-dark": ("#2d6b9a", "#2b4d66", "#23272e", "#69402f", "#a5472a"),
}

# Okabe & Ito's colours for lines, without yellow and black, each of which is lost on one
# background.
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")

EITHER_INK = "#7d838c"
"""The one grey that is visible on light and on dark paper."""

ZERO_LINE = {"width": 1, "dash": "dot", "color": EITHER_INK}
"""The line at no effect, as plotly takes it; it stays visible if the theme is replaced."""

DARK_INK, LIGHT_INK = "#000000", "#ffffff"


@dataclass(frozen=True)
class ColourScale:
    """A palette for the numbers from `low` to `high`; beyond them the end colours are used."""

    palette: str
    low: float
    high: float
    reverse: bool = False

    @property
    def stops(self) -> tuple[str, ...]:
        """Colours at equal distances, the first at `low`."""
        stops = PALETTES[self.palette]
        return stops[::-1] if self.reverse else stops

    def rgb(self, values: Float[np.ndarray, "*cell"]) -> UInt8[np.ndarray, "*cell 3"]:
        """The colour of each value; that of `low` for NaN."""
        stops = np.array([_rgb(stop) for stop in self.stops], dtype=np.float64)
        span = self.high - self.low
        place = np.nan_to_num((values - self.low) / span if span else 0 * values).clip(0, 1)
        place = place * (len(stops) - 1)
        channels = [np.interp(place, np.arange(len(stops)), stops[:, i]) for i in range(3)]
        return np.stack(channels, axis=-1).round().astype(np.uint8)


def colorscale(stops: Sequence[str]) -> list[list]:
    """Colours at equal distances, as plotly takes them."""
    return [[i / (len(stops) - 1), stop] for i, stop in enumerate(stops)]


def prefers_dark_ink(rgb: UInt8[np.ndarray, "*cell 3"]) -> Bool[np.ndarray, "*cell"]:
    """Whether black has more contrast with each colour than white, by WCAG 2's contrast ratio.

    The better of the two contrasts is never below 4.5, which WCAG requires of text.
    """
    return np.asarray(luminance(rgb) > 0.179)  # where (L + 0.05)^2 = 1.05 * 0.05


def luminance(rgb: UInt8[np.ndarray, "*cell 3"]) -> Float[np.ndarray, "*cell"]:
    """WCAG 2's relative luminance of sRGB colours, 0 to 1."""
    channel = rgb / 255
    linear = np.where(channel <= 0.04045, channel / 12.92, ((channel + 0.055) / 1.055) ** 2.4)
    # An array, and not numpy's scalar, even for a single colour.
    return np.asarray(linear @ np.array([0.2126, 0.7152, 0.0722]))


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour.removeprefix("#")))
