"""Intervals that hold for all cells of a grid at once."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from .contrasts import Resampling

MAX_T = "max-t bootstrap"
"""The method of an interval that holds for all cells of a grid."""


@dataclass(frozen=True)
class Band:
    """Means of all cells, with interval ends that hold for all cells at once.

    Attributes:
        estimates: `[cell]`, `sum(totals) / sum(counts)`.
        low, high: `[cell]`; nan with fewer than two sequences.
        p_values: `[cell]`, two-sided, for all cells at once: the smallest error `1 - level` at
            which the ends leave out 0, but not below `2 / 2^n`; 1 with fewer than two sequences.
        level: the probability that every cell's mean lies between its ends, for many sequences.
            With few or skewed ones, or of very unequal length, it is lower: the concept page on
            statistics has what simulations found for 6 to 28.
        n: how many sequences were resampled.
    """

    estimates: Float[np.ndarray, " cell"]
    low: Float[np.ndarray, " cell"]
    high: Float[np.ndarray, " cell"]
    p_values: Float[np.ndarray, " cell"]
    level: float
    n: int


def simultaneous_band(
    totals: Float[np.ndarray, "cell seq"],
    counts: Float[np.ndarray, " seq"],
    resampling: Resampling,
) -> Band:
    """The max-t bootstrap: sequences are resampled, all cells with the same draws.

    The largest distance of any cell's mean from its estimate, in the cell's standard errors, is
    below z in a share `level` of the resamples (Romano and Wolf 2005, "Exact and Approximate
    Stepdown Methods for Multiple Hypothesis Testing"). Resamples of n sequences vary by a factor
    n / (n - 1) too little, for which z is corrected. The standard errors are themselves estimated
    from n sequences. So each end is as many standard errors away as gives Student's t with n - 1
    degrees of freedom the tail that a normal variable has beyond z. The ends of cells that do not
    vary are their estimates. No p-value is below `1 / (n_resamples + 1)`, as less cannot be told
    from so many resamples, or below `2 / 2^n`, the smallest of a test that flips the signs of n
    sequences: beyond that, a p-value would rest on the shape of a distribution alone.
    """
    present = counts > 0
    totals, counts = totals[:, present], counts[present].astype(np.float64)
    n = len(counts)
    estimates = totals.sum(1) / counts.sum()
    if n < 2:
        nothing = np.full(len(totals), np.nan)
        return Band(estimates, nothing, nothing, np.ones(len(totals)), resampling.level, n)
    distances = totals - estimates[:, None] * counts
    errors = np.sqrt((distances**2).sum(1) * n / (n - 1)) / counts.sum()
    # Mere rounding does not count as variation.
    varies = errors > 1e-12 * np.abs(totals).max(1, initial=1e-300) / counts.mean()
    reach = np.zeros(len(totals))
    least = max(1 / (resampling.n_resamples + 1), 2 * 0.5**n)
    p_values = np.where(estimates == 0, 1.0, least)
    if varies.any():
        times = resampling.rng().multinomial(n, np.full(n, 1 / n), size=resampling.n_resamples).T
        moved = np.abs(distances[varies] @ times) / (counts @ times)
        largest = (moved / errors[varies, None]).max(0) * np.sqrt(n / (n - 1))
        z = np.quantile(largest, resampling.level)
        reach[varies] = stats.t.isf(stats.norm.sf(z), n - 1) * errors[varies]
        reached = stats.norm.isf(stats.t.sf(np.abs(estimates[varies]) / errors[varies], n - 1))
        beyond = (largest >= reached[:, None]).sum(1)
        p_values[varies] = np.maximum((1 + beyond) / (1 + resampling.n_resamples), least)
    return Band(estimates, estimates - reach, estimates + reach, p_values, resampling.level, n)
