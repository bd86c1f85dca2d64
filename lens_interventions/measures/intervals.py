"""Confidence intervals and tests over sequences.

Tokens of one text are not independent, so sequences (or prompts, or documents) are resampled, and
never tokens. Per-token values are given as two arrays over sequences, the sum of the values and the
number of tokens, which `behaviour.bin_totals` makes. The estimate is the ratio of the sums of these
arrays, which is the mean over all tokens. To compare conditions on the same tokens, pass the
difference of the totals, `totals - reference_totals`, with the common counts: the comparison is
then paired.

Randomness comes from the caller's `numpy.random.Generator`: the same seed gives the same numbers.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Real
from scipy import stats

from .bootstrap import BLOCK, ratio_ends


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval around it.

    Attributes:
        estimate: the estimate of the quantity.
        low: lower end; nan if there is no interval.
        high: upper end.
        level: the confidence, such as 0.95.
        method: how the interval was made; "none" if it could not be.
        n: the number of sequences behind it.
    """

    estimate: float
    low: float
    high: float
    level: float
    method: str
    n: int

    def columns(self) -> dict[str, float]:
        """The values of the columns estimate, low, high and n of a table's row."""
        return {"estimate": self.estimate, "low": self.low, "high": self.high, "n": self.n}

    def __str__(self) -> str:
        if self.method == "none":
            return f"{self.estimate:.3g} (no interval, n = {self.n})"
        return (
            f"{self.estimate:.3g} [{self.low:.3g}, {self.high:.3g}] "
            f"({100 * self.level:g}% {self.method}, n = {self.n})"
        )


def mean_interval(
    totals: Real[np.ndarray, " seq"] | Sequence[float],
    counts: Real[np.ndarray, " seq"] | Sequence[float] | None = None,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    n_resamples: int = 9999,
) -> Interval:
    """Bootstrap interval of `sum(totals) / sum(counts)`; one cell of `mean_intervals`.

    Raises `ValueError` for values that are not finite, negative counts, shapes that differ or are
    not `[seq]`, a `level` that is not between 0 and 1, or no resamples.
    """
    totals = np.asanyarray(totals)
    if totals.ndim != 1:
        raise ValueError(
            f"expected one total per sequence, [seq], got shape {totals.shape}: for several cells "
            "use mean_intervals"
        )
    (interval,) = mean_intervals(
        totals[None],
        None if counts is None else np.asanyarray(counts)[None],
        rng=rng,
        level=level,
        n_resamples=n_resamples,
    )
    return interval


def mean_intervals(
    totals: Real[np.ndarray, "cell seq"],
    counts: Real[np.ndarray, "cell seq"] | None = None,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    n_resamples: int = 9999,
) -> list[Interval]:
    """Bootstrap interval of `sum(totals) / sum(counts)` over sequences, for each cell of a grid.

    Sequences are drawn with replacement, totals and counts together. Without counts, each sequence
    counts as one. The same draws serve all cells with the same sequences. Equivalent to
    `scipy.stats.bootstrap((totals, counts), ratio, paired=True)` with the same generator, but one
    matrix product sums the resamples, so thousands of cells take seconds.

    `level` is the confidence, and `rng` draws the `n_resamples` resamples.

    - A sequence with a count of 0 in a cell is left out of that cell, and `n` is the number of the
        others. With fewer than two there is no interval (`method` "none"); with none the estimate
        is nan.
    - `method` is "BCa" (Efron 1987). It is "percentile" for more than 5,000 sequences, where BCa
        takes long and corrects little unless tails are heavy. It is "percentile", too, if BCa is
        undefined, because all resamples are equal or on one side of the estimate. If all sequences
        agree, the interval has no width, which says only that nothing varied in this sample; for
        shares use `share_interval`.
    - With few sequences the bootstrap covers too little: at n = 10, a 95% interval of normal data
        covers about 90%.

    Raises `ValueError` for values that are not finite, negative counts, or shapes that differ or
    are not `[cell, seq]`; `TypeError` if `rng` is not a generator.
    """
    totals, counts = checked_sums(totals, counts)
    if totals.ndim != 2:
        raise ValueError(
            f"expected totals [cell, seq], got shape {totals.shape}: for one cell use mean_interval"
        )
    if not 0 < level < 1 or n_resamples < 1:
        raise ValueError(f"expected 0 < level < 1 and n_resamples >= 1, got {level}, {n_resamples}")
    _require_generator(rng)
    cells_with = defaultdict(list)
    for cell, row in enumerate(counts > 0):
        cells_with[row.tobytes()].append(cell)
    intervals: dict[int, Interval] = {}
    for cells in cells_with.values():
        present = counts[cells[0]] > 0
        found = _intervals_of_present(
            totals[np.ix_(cells, present)], counts[np.ix_(cells, present)], rng, level, n_resamples
        )
        intervals.update(zip(cells, found, strict=True))
    return [intervals[cell] for cell in range(len(totals))]


def _require_generator(rng: np.random.Generator) -> None:
    """Raise `TypeError` for anything else, such as a seed."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a generator, such as np.random.default_rng(0); got {rng!r}")


def checked_sums(
    totals: Real[np.ndarray, "*cell"], counts: Real[np.ndarray, "*cell"] | None
) -> tuple[Float[np.ndarray, "*cell"], Float[np.ndarray, "*cell"]]:
    """`totals` and `counts` as float64 arrays; without `counts` each total counts as one.

    Raises `ValueError` for values that are not finite or masked, negative counts or shapes that
    differ.
    """
    if np.ma.is_masked(totals) or np.ma.is_masked(counts):
        raise ValueError("totals or counts are masked: leave a cell out by a count of 0")
    totals = np.asarray(totals, dtype=np.float64)
    counts = np.ones_like(totals) if counts is None else np.asarray(counts, dtype=np.float64)
    if totals.shape != counts.shape:
        raise ValueError(
            f"totals have shape {totals.shape}, counts {counts.shape}: give each total its count"
        )
    totals = np.where(counts == 0, 0.0, totals)  # what is left out may be missing
    if not np.isfinite(totals).all() or not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError(
            "totals and counts must be finite and counts not negative: leave a cell out by a count "
            "of 0"
        )
    return totals, counts


def share_interval(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Wilson's interval for a share, such as the share of samples that end in a loop.

    This is `scipy.stats.binomtest(...).proportion_ci(method="wilson")` at confidence `level`.
    Unlike a bootstrap interval, it has a width if none or all of the samples succeed. The samples
    must be independent: take one per prompt.

    Raises `ValueError` unless `0 <= successes <= n` and `n >= 1`, or if `level` is not between 0
    and 1.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"expected 0 <= successes <= n with n >= 1, got {successes} of {n}")
    if not 0 < level < 1:
        raise ValueError(f"expected 0 < level < 1, got {level}")
    ci = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return Interval(successes / n, float(ci.low), float(ci.high), level, "Wilson", n)


def share_difference_interval(
    successes: Bool[np.ndarray, " seq"],
    reference: Bool[np.ndarray, " seq"],
    *,
    level: float = 0.95,
) -> Interval:
    """Interval of the paired difference of two shares: `mean(successes) - mean(reference)`.

    It is the normal interval at confidence `level` after adding one pair in which only the first
    succeeds and one in which only the second does (Bonett and Price 2012, "Adjusted Wald Confidence
    Interval for a Difference of Binomial Proportions Based on Paired Data"). It has a width even if
    no pair differs, and its centre is the adjusted difference, a little nearer to 0 than the
    estimate.

    Raises `ValueError` if the numbers differ, if there are none, if they are not all true or false
    (or 1 or 0), or if `level` is not between 0 and 1.
    """
    successes, reference = (_as_bools(each) for each in (successes, reference))
    if successes.shape != reference.shape or successes.ndim != 1 or not successes.size:
        raise ValueError(
            f"expected equally many successes and reference values, [seq], at least one; got "
            f"{successes.shape} and {reference.shape}"
        )
    if not 0 < level < 1:
        raise ValueError(f"expected 0 < level < 1, got {level}")
    n = len(successes)
    gained, lost = int((successes & ~reference).sum()), int((~successes & reference).sum())
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = float(stats.norm.isf((1 - level) / 2)) * math.sqrt(
        (up + down - (up - down) ** 2) / (n + 2)
    )
    centre = up - down
    low, high = max(centre - half, -1.0), min(centre + half, 1.0)
    return Interval((gained - lost) / n, low, high, level, "Bonett-Price", n)


def _as_bools(given: Bool[np.ndarray, " seq"]) -> Bool[np.ndarray, " seq"]:
    """What is true and what is false; a missing value is neither."""
    values = np.asarray(given)
    if np.ma.is_masked(given) or not np.isin(values, (0, 1)).all():
        raise ValueError(
            f"expected true or false, or 1 or 0, for each sequence; got {given!r:.100}"
        )
    return values.astype(bool)


def sign_flip_p_values(
    differences: Real[np.ndarray, "cell seq"],
    *,
    rng: np.random.Generator,
    n_resamples: int = 9999,
) -> Float[np.ndarray, " cell"]:
    """Two-sided p-value of each cell's paired differences against a distribution symmetric about 0.

    The signs of whole sequences are flipped at random and the sums compared. If there are no more
    than `n_resamples` ways to do so, all 2^n are tried, and the test is exact. Equivalent to
    `scipy.stats.permutation_test` of type "samples", but the same flips serve all cells.
    Differences of totals test the difference of the means over tokens, because both have the same
    counts.

    `rng` draws the flips. The smallest possible p-value is `2 / 2^n`, or `2 / (n_resamples + 1)`;
    choose `n_resamples` so that this survives the correction for the size of the grid.

    Raises `ValueError` unless the differences are `[cell, seq]`, finite, and of at least two
    sequences; `TypeError` if `rng` is not a generator.
    """
    _require_generator(rng)
    if np.ma.is_masked(differences):
        raise ValueError("differences are masked: leave those sequences out")
    differences = np.asarray(differences, dtype=np.float64)
    if differences.ndim != 2 or differences.shape[1] < 2 or not np.isfinite(differences).all():
        raise ValueError(
            "a sign-flip test needs finite differences [cell, seq] of at least two sequences, got "
            f"shape {differences.shape}"
        )
    # Sums that are 0 but for rounding are as far from 0 as the observed one, if that is 0, too.
    rounding = 1e-12 * np.abs(differences).sum(-1)

    def sums(signs: np.ndarray, axis: int) -> np.ndarray:  # noqa: ARG001 - scipy passes axis=-1
        found = signs @ differences.T
        return np.where(np.abs(found) <= rounding, 0, found)

    # scipy flips the signs of ones; one product turns them into the sums of all cells.
    result = stats.permutation_test(
        (np.ones(differences.shape[1]),),
        sums,
        permutation_type="samples",
        vectorized=True,
        n_resamples=n_resamples,
        batch=max(1, BLOCK // differences.shape[1]),
        axis=-1,
        rng=rng,
    )
    return np.asarray(result.pvalue, dtype=np.float64)


def holm(p_values: Float[np.ndarray, "*cell"] | Sequence[float]) -> Float[np.ndarray, "*cell"]:
    """Adjusted p-values: rejecting those below alpha keeps the chance of any false one below alpha.

    All of them are one family, whatever the shape of the grid.

    By Holm (1979), "A Simple Sequentially Rejective Multiple Test Procedure": the k-th smallest of
    m is multiplied by m - k + 1, made monotone, and cut at 1. This assumes nothing about
    dependence.

    Raises `ValueError` if one of `p_values` is outside 0..1 or nan.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    if not ((p_values >= 0) & (p_values <= 1)).all():
        raise ValueError(f"p-values must lie between 0 and 1, got {p_values}")
    order = np.argsort(p_values, axis=None)
    scaled = p_values.flat[order] * np.arange(p_values.size, 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted.flat[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return adjusted


def _intervals_of_present(
    totals: Float[np.ndarray, "cell seq"],
    counts: Float[np.ndarray, "cell seq"],
    rng: np.random.Generator,
    level: float,
    n_resamples: int,
) -> list[Interval]:
    """`mean_intervals` for cells in which every sequence has a count."""
    n = totals.shape[1]
    if n == 0:
        return [Interval(math.nan, math.nan, math.nan, level, "none", 0) for _ in totals]
    estimates = (totals.sum(-1) / counts.sum(-1)).tolist()
    if n == 1:
        return [Interval(estimate, math.nan, math.nan, level, "none", 1) for estimate in estimates]
    ends = ratio_ends(totals, counts, rng, level, n_resamples)
    return [
        Interval(estimate, low, high, level, method, n)
        for estimate, (low, high, method) in zip(estimates, ends, strict=True)
    ]
