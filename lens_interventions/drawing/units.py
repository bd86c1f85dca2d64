"""Units of the drawn values: their names on an axis, and the places of their values on it.

A unit without an entry here is its own title, on a linear axis.
"""

import numpy as np
from jaxtyping import Float

RANK, SHARE = "rank", "share"

_TITLES = {
    RANK: "rank (0 = top guess)",
    SHARE: "share of positions",
    "log-prob": "log-prob, nats",
}


def unit_title(unit: str) -> str:
    """The unit, with the explanation that a reader needs."""
    return _TITLES.get(unit, unit)


def place(values: Float[np.ndarray, "*cell"], unit: str) -> Float[np.ndarray, "*cell"]:
    """The places of values on their axis: log10(1 + rank) for ranks, otherwise the values."""
    return np.log10(1 + values) if unit == RANK else values
