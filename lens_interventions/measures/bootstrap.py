"""The ends of bootstrap intervals, for many cells at once."""

import warnings
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

# Elements of the largest temporary array for a block of cells or of draws.
BLOCK = 2_000_000
# BCa leaves out each sequence in turn, so its time grows with the square of their number. What it
# corrects shrinks with the root of that number.
_MOST_FOR_BCA = 5000
# Relative to the size of what is summed.
_ROUNDING = 1e-12


def ratio_ends(
    totals: Float[np.ndarray, "cell seq"],
    counts: Float[np.ndarray, "cell seq"],
    rng: np.random.Generator,
    level: float,
    n_resamples: int,
) -> list[tuple[float, float, str]]:
    """Low end, high end and method of `sum(totals) / sum(counts)` for each cell.

    The same `n_resamples` draws of sequences, made with `rng`, serve all cells. There must be at
    least two sequences, and no count may be 0.
    """
    start = rng.bit_generator.state
    ends = []
    for first in range(0, len(totals), block := max(1, BLOCK // n_resamples)):
        cells = slice(first, first + block)
        rng.bit_generator.state = start
        distribution = _distribution(totals[cells], counts[cells], rng, n_resamples)
        ends += _ends(totals[cells], counts[cells], distribution, level)
    return ends


def _distribution(
    totals: Float[np.ndarray, "cell seq"],
    counts: Float[np.ndarray, "cell seq"],
    rng: np.random.Generator,
    n_resamples: int,
) -> Float[np.ndarray, "cell resample"]:
    """The ratio in each resample, a block of draws at a time."""
    n = totals.shape[1]
    found = []
    for first in range(0, n_resamples, block := max(1, BLOCK // n)):
        times = _times_drawn(rng, min(block, n_resamples - first), n)
        found.append((totals @ times) / (counts @ times))
    return np.concatenate(found, axis=1)


def _times_drawn(
    rng: np.random.Generator, n_resamples: int, n: int
) -> Float[np.ndarray, "seq resample"]:
    """How often each sequence was drawn. Sums over a resample are products with these counts."""
    draws = rng.integers(0, n, (n_resamples, n)) + np.arange(n_resamples)[:, None] * n
    times = np.bincount(draws.ravel(), minlength=n_resamples * n)
    return times.reshape(n_resamples, n).T.astype(np.float64)


def _ends(
    totals: Float[np.ndarray, "cell seq"],
    counts: Float[np.ndarray, "cell seq"],
    distribution: Float[np.ndarray, "cell resample"],
    level: float,
) -> list[tuple[float, float, str]]:
    # Resamples are summed in another order than the estimate. BCa counts how many are below it, so
    # those that equal it must do so to the last bit. Few sequences or values have many.
    estimate = (totals.sum(-1) / counts.sum(-1))[:, None]
    rounding = _ROUNDING * (np.abs(totals).sum(-1) / counts.sum(-1))[:, None]
    np.copyto(distribution, estimate, where=np.abs(distribution - estimate) <= rounding)
    alike = np.ptp(totals / counts, axis=-1) <= rounding[:, 0]
    distribution[alike] = totals[alike, :1] / counts[alike, :1]
    return bootstrap_ends(
        (totals, counts),
        lambda t, c, axis: t.sum(axis) / c.sum(axis),
        distribution,
        level,
        undefined=alike,
    )


def bootstrap_ends(
    data: Sequence[np.ndarray],
    statistic: Callable[..., Any],
    distribution: Float[np.ndarray, "cell resample"],
    level: float,
    *,
    undefined: Bool[np.ndarray, " cell"] | None = None,
) -> list[tuple[float, float, str]]:
    """Low end, high end and method of each cell: BCa, or percentile where BCa does not serve.

    **Arguments:**

    - `data`: arrays `[cell, seq]` that are resampled together, along the last axis.
    - `statistic`: called as `statistic(*data, axis=-1)`, vectorised.
    - `distribution`: its values on the resamples, which the caller has made.
    - `level`: of the intervals.
    - `undefined`: cells to which BCa does not apply, in addition to those where it gives nan.
    """
    n_cells, n = data[0].shape

    def interval(method: str) -> tuple[np.ndarray, np.ndarray]:
        # If BCa is undefined, scipy warns and returns nan; the returned method says so.
        with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            ends = stats.bootstrap(  # type: ignore[call-overload]
                data,
                statistic,
                paired=True,
                vectorized=True,
                axis=-1,
                n_resamples=0,
                # BCa leaves out each sequence in turn, so many at a time.
                batch=max(1, BLOCK // (n_cells * n)),
                confidence_level=level,
                method=method,
                # scipy reads only this attribute, and resumes from a given distribution.
                bootstrap_result=SimpleNamespace(bootstrap_distribution=distribution),
            ).confidence_interval
        return ends.low, ends.high

    if n > _MOST_FOR_BCA:
        return [(*ends, "percentile") for ends in np.stack(interval("percentile"), -1).tolist()]
    low, high = interval("BCa")
    without_bca = np.isnan(low) | np.isnan(high)
    if undefined is not None:
        without_bca |= undefined
    if without_bca.any():  # rarely, and testing for it takes as long again
        low, high = np.where(without_bca, interval("percentile"), (low, high))
    methods = np.where(without_bca, "percentile", "BCa")
    return list(zip(low.tolist(), high.tolist(), methods.tolist(), strict=True))


def bootstrap_p_value(
    cells: Sequence[np.ndarray],
    statistic: Callable[..., Any],
    distribution: Float[np.ndarray, " resample"],
) -> float:
    """The smallest error at which the interval of `bootstrap_ends` leaves out 0, for one cell.

    This is the two-sided p-value of the test that the interval makes. The arguments are those of
    `bootstrap_ends`, with one cell. The value is at least `2 / (n_resamples + 1)`, as less cannot
    be told from so many resamples, and is within a hundredth of that.
    """

    def leaves_out(error: float) -> bool:
        ((low, high, _),) = bootstrap_ends(cells, statistic, distribution[None], 1 - error)
        return low > 0 or high < 0

    smallest = 2 / (len(distribution) + 1)
    if leaves_out(smallest):
        return smallest
    included, excluded = smallest, 1.0
    while excluded - included > smallest / 100:
        middle = (included + excluded) / 2
        if leaves_out(middle):
            excluded = middle
        else:
            included = middle
    return excluded
