"""Intervals and tests of a mean over crossed sets, such as seeds and sequences.

Each cell [row, column] is one pairing, such as the loss of training seed r on sequence c, or the
effect of a word in a frame. Cells of one row are not independent, nor are those of one column, so
both are resampled. Rows and columns are drawn with replacement, independently, and the weight of a
cell is how often its row was drawn times how often its column was (the pigeonhole bootstrap, Owen
2007). A third set, such as the seeds of a training measured on words in frames, is one axis more.

The resamples give the standard error. Its factor is the mean of two values of Student's t, that of
the number of rows and that of the number of columns, weighted by what each contributes to the
variance (Cochran and Cox 1950, "Experimental Designs"). Percentiles fail with few rows, because no
resample of three seeds lies outside the three. A single t with Satterthwaite's degrees of freedom
fails too: seeds that agree by luck pass for many. Of independent normal means of 2 and 57 values it
covers 87% where those of 2 vary most, while the weighted mean covers 94%, and 95% from 3 values on.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Real
from scipy import optimize, stats

from .intervals import Interval, checked_sums

# A standard error below this share of the mean is what rounding leaves of equal cells.
_ROUNDING = 1e-12


def crossed_mean_test(
    totals: Real[np.ndarray, "row ..."],
    counts: Real[np.ndarray, "row ..."] | None = None,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    n_resamples: int = 9999,
    freedoms: Sequence[float] | None = None,
) -> tuple[Interval, float]:
    """`crossed_mean_interval` of `totals` and `counts`, and a p-value of their quotient against 0.

    The p-value is two-sided. It is one minus the level at which the interval, with the same
    generator, just reaches 0, and 1 if there is no interval. Where nothing varies, the interval has
    no width, and the p-value is 2/2^n for n cells, the smallest that a sign-flip test of as many
    has. `rng` draws the `n_resamples` resamples once for both; `level` is the interval's
    confidence.

    `freedoms` gives the degrees of freedom of each axis where a few of its rows or columns have
    most of the weight. They are cut to one less than their number, which is the default.

    Raises `ValueError` in the cases of `crossed_mean_interval`, and for `freedoms` that are not a
    positive number for each axis.
    """
    totals, counts = _present(totals, counts)
    if freedoms is not None and not (
        len(freedoms) == totals.ndim and all(freedom > 0 for freedom in freedoms)
    ):
        raise ValueError(
            f"expected {totals.ndim} positive degrees of freedom, one for each axis; got {freedoms}"
        )
    if not 0 < level < 1 or n_resamples < 2:
        raise ValueError(f"expected 0 < level < 1 and n_resamples >= 2, got {level}, {n_resamples}")
    n = min(totals.shape)
    estimate = float(totals.sum() / counts.sum()) if n else math.nan
    if n < 2:
        return Interval(estimate, math.nan, math.nan, level, "none", n), 1.0
    variances = _variances(totals, counts, rng, n_resamples)
    most = np.array(totals.shape) - 1.0
    known = most if freedoms is None else np.minimum(freedoms, most)
    error = math.sqrt(variances.sum())
    if error <= _ROUNDING * abs(estimate):
        # Nothing varies, so there is no t. As many equal signs have this chance.
        p_value = min(2 * 0.5 ** int((counts > 0).sum()), 1.0) if estimate else 1.0
        return Interval(estimate, estimate, estimate, level, "crossed t", n), p_value
    half = error * _factor(variances, known, 1 - level)
    interval = Interval(estimate, estimate - half, estimate + half, level, "crossed t", n)
    return interval, _p_value(estimate, variances, known)


def crossed_mean_interval(
    totals: Real[np.ndarray, "row ..."],
    counts: Real[np.ndarray, "row ..."] | None = None,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    n_resamples: int = 9999,
) -> Interval:
    """Interval of `sum(totals) / sum(counts)` where rows and columns are both samples.

    Each axis of the arrays is a set that is a sample; there may be more than two.

    For a paired comparison, pass the differences of the totals with the common counts. Without
    counts, each cell counts as one. A cell with a count of 0 is left out, and so is a row or column
    that has no other cell. `rng` draws the `n_resamples` resamples; `level` is the confidence.

    `method` is "crossed t", and `n` the number of rows or of columns, whichever is smaller. With
    fewer than two rows or columns there is no interval (`method` "none"). The interval errs on the
    wide side where single cells vary: resampling both counts what varies from cell to cell up to
    three times, and resampling three sets up to seven times. If texts alone vary and are of very
    unequal size, it is somewhat too narrow.

    Raises `ValueError` for shapes that differ, values that are not finite, negative counts, a
    `level` that is not between 0 and 1, or fewer than two resamples.
    """
    interval, _ = crossed_mean_test(totals, counts, rng=rng, level=level, n_resamples=n_resamples)
    return interval


def _present(
    totals: Real[np.ndarray, "row ..."], counts: Real[np.ndarray, "row ..."] | None
) -> tuple[Float[np.ndarray, "some_rows ..."], Float[np.ndarray, "some_rows ..."]]:
    """Checked totals and counts of the rows and columns that count at all."""
    totals, counts = checked_sums(totals, counts)
    kept = np.ix_(*(_along(counts, axis) > 0 for axis in range(counts.ndim)))
    return totals[kept], counts[kept]


def _along(values: Float[np.ndarray, "row ..."], axis: int) -> Float[np.ndarray, " kept"]:
    """Sums over all other axes."""
    return values.sum(tuple(other for other in range(values.ndim) if other != axis))


def _factor(
    variances: Float[np.ndarray, " axis"], freedoms: Float[np.ndarray, " axis"], miss: float
) -> float:
    """Half the width, in standard errors, of the interval that misses with this chance."""
    return float(np.average(stats.t.isf(miss / 2, freedoms), weights=variances))


def _p_value(
    estimate: float,
    variances: Float[np.ndarray, " axis"],
    freedoms: Float[np.ndarray, " axis"],
) -> float:
    """The chance of missing at which the interval just reaches 0."""
    if estimate == 0:
        return 1.0
    away = abs(estimate) / math.sqrt(variances.sum())
    # The weighted mean lies between the t of most and that of fewest degrees of freedom.
    ends = np.asarray(2 * stats.t.sf(away, freedoms))
    least, most = float(ends.min()), float(ends.max())
    if least == most or least == 0:
        return most

    def beyond(log_miss: float) -> float:
        return _factor(variances, freedoms, math.exp(log_miss)) - away

    low, high = math.log(least), math.log(most)
    # Where one axis has nearly all of the variance, an end is the root up to rounding.
    if beyond(low) <= 0:
        return least
    return most if beyond(high) >= 0 else math.exp(optimize.brentq(beyond, low, high))


def _variances(
    totals: Float[np.ndarray, "row ..."],
    counts: Float[np.ndarray, "row ..."],
    rng: np.random.Generator,
    n_resamples: int,
) -> Float[np.ndarray, " axis"]:
    """The variance of the mean that each axis contributes."""
    n = np.array(totals.shape)
    draws = [rng.multinomial(size, np.full(size, 1 / size), n_resamples) for size in n]
    times = [each.astype(np.float64) for each in draws]
    weights = _drawn(counts, times)
    # A resample may miss every cell where many are left out.
    drawn = weights > 0
    means = _drawn(totals, times)[drawn] / weights[drawn]
    # The contributions of rows and of columns, to first order of the ratio.
    around = totals - totals.sum() / counts.sum() * counts
    parts = np.array([(_along(around, axis) ** 2).sum() for axis in range(totals.ndim)])
    if parts.sum() <= np.finfo(np.float64).eps * (around**2).sum():
        # Only single cells differ: all of it goes to the axis that knows least.
        return means.var() * (n == n.min()) / (n == n.min()).sum()
    # Drawing n of n shrinks a variance by (n - 1) / n.
    return means.var() * parts / parts.sum() * n / (n - 1)


def _drawn(
    values: Float[np.ndarray, "row ..."], times: list[Float[np.ndarray, "resample n"]]
) -> Float[np.ndarray, " resample"]:
    """The sum of all cells in each resample; `times` says how often each row or column is drawn."""
    rows, *columns = times
    found = np.tensordot(rows, values, 1)
    for each in columns:
        found = np.einsum("sc...,sc->s...", found, each)
    return found
