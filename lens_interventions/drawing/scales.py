"""The colours of a heat map's numbers, and the ticks of its colour bar.

In every figure, bright means close to the output, likely, or certain.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from .colours import ColourScale
from .units import RANK, place

_RANK_TICKS = (0, 1, 3, 10, 30, 100, 300, 1000)
_BRIGHT_IS_HIGH = ("logit", "log-prob")
# So many interquartile ranges beyond a quartile, a value is far out (Tukey 1977).
_FAR_OUT = 3


@dataclass(frozen=True)
class Scale:
    """Colours for the values of one unit.

    Attributes:
        unit: the unit of the values. Ranks are placed by their logarithm.
        palette: the palette of the colours.
        low, high: the values at which the colours stop; None for the smallest or largest value
            shown that is not far out.
    """

    unit: str
    palette: str
    low: float | None = None
    high: float | None = None

    def colours(self, values: Float[np.ndarray, "*cell"]) -> ColourScale:
        """The colours for the places of `values`, which they span if the scale is open."""
        shown = values[np.isfinite(values)]
        low, high = _ends(shown if shown.size else np.array([0.0, 1.0]), self.low, self.high)
        low, high = place(np.array([low, max(high, low)]), self.unit).tolist()
        return ColourScale(self.palette, low, high, reverse=self.unit not in _BRIGHT_IS_HIGH)

    def ticks(
        self, colours: ColourScale, values: Float[np.ndarray, "*cell"]
    ) -> tuple[list[float], list[str]]:
        """The places and texts of the colour bar's ticks, with marks where colours are cut off."""
        if self.unit == RANK:
            at = [rank for rank in _RANK_TICKS if math.log10(1 + rank) <= colours.high + 1e-9]
            places = [math.log10(1 + rank) for rank in at]
            texts = [f"{rank:,}" for rank in at]
        else:
            places = round_steps(colours.low, colours.high)
            texts = [f"{step:g}".replace("-", "−") for step in places]
        return places, cut_off(places, texts, place(values, self.unit), colours.low, colours.high)


def _ends(
    shown: Float[np.ndarray, " cell"], fixed_low: float | None, fixed_high: float | None
) -> tuple[float, float]:
    """The smallest and the largest of some values, or a round number before those far out.

    Otherwise one layer with logits ten times as large leaves all others a single colour. An end
    that is fixed, which may be the lower one, stays where it is.
    """
    first, third = np.quantile(shown, (0.25, 0.75)).tolist()
    reach = _FAR_OUT * (third - first)
    low = float(shown.min()) if fixed_low is None else fixed_low
    high = float(shown.max()) if fixed_high is None else fixed_high
    cut_low = fixed_low is None and reach > 0 and low < first - reach
    cut_high = fixed_high is None and reach > 0 and high > third + reach
    if cut_high and fixed_low is not None:
        # A step of such a scale may be wider than all that lies near the quartiles.
        return low, min(high, _next_tick(low, third + reach))
    low, high = first - reach if cut_low else low, third + reach if cut_high else high
    while cut_low or cut_high:  # until both ends have a tick, which says that values lie beyond
        steps = round_steps(low, high)
        ends = steps[0] if cut_low else low, steps[-1] if cut_high else high
        if ends == (low, high):
            break
        low, high = ends
    return low, high


def _next_tick(low: float, high: float) -> float:
    """The smallest number from `high` on that is a tick of a scale from `low` to it."""
    while not math.isclose((steps := round_steps(low, high))[-1], high):
        high = steps[-1] + steps[-1] - steps[-2]
    return high


def cut_off(
    places: Sequence[float],
    texts: Sequence[str],
    values: Float[np.ndarray, "*cell"],
    low: float,
    high: float,
) -> list[str]:
    """The texts of ticks at `places`, with a mark at an end of the scale that values lie beyond."""
    shown, marked = values[np.isfinite(values)], list(texts)
    if shown.size and shown.max() > high and math.isclose(places[-1], high):
        marked[-1] = f"≥ {marked[-1]}"
    if shown.size and shown.min() < low and math.isclose(places[0], low):
        marked[0] = f"≤ {marked[0]}"
    return marked


def round_steps(low: float, high: float) -> list[float]:
    """Up to eight round numbers between `low` and `high`; only `low` if they are the same."""
    if high <= low:
        return [low]
    magnitude = 10 ** math.floor(math.log10((high - low) / 4))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if (high - low) / (m * magnitude) <= 7)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.10g}") for i in range(first, last + 1)]


def thinned(count: int, most: int) -> list[int]:
    """Indices of about `most` of `count` names at even steps, the last among them."""
    step = max(1, round(count / most))
    return [i for i in range(0, count - 1, step) if count - 1 - i >= step] + [count - 1]


def difference_ticks(limit: float) -> tuple[list[float], list[str]]:
    """Round numbers from `-limit` to `limit`, and their texts, each with its sign."""
    places = round_steps(-limit, limit)
    return places, [f"{place:+g}".replace("-", "−") if place else "0" for place in places]
