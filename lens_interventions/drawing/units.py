"""Units of what is drawn: how an axis names them, and where their values stand on it.

A unit without an entry here is its own title, on a linear axis.
"""

import numpy as np
from jaxtyping import Float

RANK, SHARE = "rank", "share"

_TITLES = {RANK: "rank (0 = top guess)", SHARE: "share of positions"}


def unit_title(unit: str) -> str:
    """The unit with what a reader needs to know about it."""
    return _TITLES.get(unit, unit)


def place(values: Float[np.ndarray, "*cell"], unit: str) -> Float[np.ndarray, "*cell"]:
    """Where values stand on their axis: ranks at log10(1 + rank), the rest at themselves."""
    return np.log10(1 + values) if unit == RANK else values
