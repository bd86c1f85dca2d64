"""Colours of differences if a few dwarf the rest, such as those at a text's first position."""

import numpy as np
from jaxtyping import Float

from .panel import DifferenceScale
from .scales import difference_ticks

_SHOWN = 0.98  # share of the cells that have colours of their own


def clipped_scale(
    values: Float[np.ndarray, "row column"],
) -> tuple[DifferenceScale, tuple[list[float], list[str]], str]:
    """A scale that stops at a size that 98% of the cells do not exceed, ticks, and a sentence.

    The sentence says how many cells exceed it, and is empty if none does. Values that are not
    finite set no limit.
    """
    sizes = np.abs(values[np.isfinite(values)])
    limit = 1.0
    if sizes.size:
        limit = float(np.quantile(sizes, _SHOWN, method="higher")) or float(sizes.max()) or 1.0
    beyond = int((np.abs(values) > limit).sum())
    cells = "1 cell lies" if beyond == 1 else f"{beyond} cells lie"
    return (
        DifferenceScale(limit),
        difference_ticks(limit),
        f"Colours stop at ±{limit:.3g}; {cells} beyond." if beyond else "",
    )
