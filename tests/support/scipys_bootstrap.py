"""Bootstrap intervals of ratios of sums, as scipy computes them."""

from typing import Any

import numpy as np
from jaxtyping import Num
from scipy import stats


def ends_of_scipy(
    totals: Num[np.ndarray, " sequence"],
    counts: Num[np.ndarray, " sequence"],
    *,
    seed: int,
    **options: Any,
) -> tuple[float, float]:
    """The low and the high end; `options` are those of `scipy.stats.bootstrap`."""
    found = stats.bootstrap(
        (totals, counts),
        lambda t, c, axis: t.sum(axis) / c.sum(axis),
        paired=True,
        vectorized=True,
        batch=500,
        rng=np.random.default_rng(seed),
        **options,
    ).confidence_interval
    return found.low, found.high
