"""Rank correlations of tokens and templates, with intervals over one set of clusters or two."""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from ...measures.bootstrap import bootstrap_ends, bootstrap_p_value
from ...measures.intervals import Interval
from ..design.contrasts import Contrast, Resampling, crossed_contrast
from .token_rows import RARITY, SURPRISE, WITHIN, TokenRows

# Resamples worked on at once.
_RESAMPLES = 250

# Sums over a resample, or over the sample itself.
Numbers = np.ndarray | np.float64


def spearman(
    y: Float[np.ndarray, " token"],
    x: Float[np.ndarray, " token"],
    clusters: np.ndarray,
    resampling: Resampling,
    *,
    given: Float[np.ndarray, " token"] | None = None,
) -> Contrast:
    """Spearman's correlation of y and x over all tokens, against 0, by clusters.

    With `given` it is the partial correlation, that of the residuals after the ranks of `given`
    were regressed out of both: `(r_yx - r_yz r_xz) / sqrt((1 - r_yz^2)(1 - r_xz^2))`.

    Whole clusters are drawn with replacement (`scipy.stats.bootstrap`, BCa, or percentile where it
    is undefined or there are more than 5,000 clusters). Ranks are those of the full sample, so that
    a resample is a weighted sum of each cluster's moments. The p-value is the smallest error at
    which the interval leaves out 0.
    """
    names, of = np.unique(clusters, return_inverse=True)
    variables = [_standard_ranks(v) for v in (y, x, *(() if given is None else (given,)))]
    moments: list[np.ndarray] = [np.bincount(of, minlength=len(names)).astype(np.float64)]
    moments += [np.bincount(of, v, minlength=len(names)) for v in variables]
    moments += [
        np.bincount(of, a * b, minlength=len(names))
        for i, a in enumerate(variables)
        for b in variables[i:]
    ]
    n_variables = len(variables)

    def statistic(*sums: np.ndarray, axis: int) -> Numbers:
        return _correlation([s.sum(axis) for s in sums], n_variables)

    estimate = float(_correlation([m.sum() for m in moments], n_variables))
    n, level = len(names), resampling.level
    if n < 2 or not np.isfinite(estimate):
        return Contrast(Interval(estimate, float("nan"), float("nan"), level, "none", n), 1.0)
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        distribution = stats.bootstrap(  # type: ignore[call-overload]
            moments,
            statistic,
            paired=True,
            vectorized=True,
            axis=-1,
            batch=_RESAMPLES,
            n_resamples=resampling.n_resamples,
            method="percentile",
            rng=resampling.rng(),
        ).bootstrap_distribution
    cells = [moment[None] for moment in moments]
    ((low, high, method),) = bootstrap_ends(cells, statistic, distribution[None], level)
    if not np.isfinite(low + high):
        return Contrast(Interval(estimate, low, high, level, "none", n), 1.0)
    p_value = bootstrap_p_value(cells, statistic, distribution)
    return Contrast(Interval(estimate, low, high, level, method, n), p_value)


def crossed_spearman(
    y: Float[np.ndarray, " token"],
    x: Float[np.ndarray, " token"],
    rows: np.ndarray,
    columns: np.ndarray,
    resampling: Resampling,
    *,
    given: Float[np.ndarray, " token"] | None = None,
) -> Contrast:
    """The correlation of `spearman`, where two crossed sets of clusters are both samples.

    The same kind of token stands in many documents, and so does a word in several sentences. To
    first order, the correlation r is the mean over tokens of `r + e_y e_x - r (e_y^2 + e_x^2) / 2`,
    where e are the ranks of y and x without what those of `given` predict, at variance 1. Sums of
    these go into a crossed test. If no variance is left, there is no correlation and no interval.

    A few kinds have most of the weight, so few contributions decide the variance. It is assumed
    that y has an effect of each cluster and one as large of each token, neither related to x. Then
    the contribution of a cluster c has a variance of `g_c = (sum e_x)^2 + sum e_x^2`, and an axis
    has `(sum g)^2 / sum g^2` degrees of freedom (Satterthwaite 1946), or one less than its
    clusters. So x is what is given, such as the rarity of a kind, and y what was measured.
    """
    ranks = [_standard_ranks(v) for v in (y, x)]
    if given is not None:
        third = _standard_ranks(given)
        ranks = [v - (v * third).mean() * third for v in ranks]
    (names, of_row), (others, of_column) = (
        np.unique(clusters, return_inverse=True) for clusters in (rows, columns)
    )
    cell, shape = of_row * len(others) + of_column, (len(names), len(others))
    deviations = [float(v.std()) for v in ranks]
    # Ranks have variance 1, so less than this is what rounding leaves of none.
    if min(deviations) < 1e-9:
        return _no_correlation(resampling, min(shape))
    e_y, e_x = (v / deviation for v, deviation in zip(ranks, deviations, strict=True))
    r = float((e_y * e_x).mean())
    values = r + e_y * e_x - r * (e_y**2 + e_x**2) / 2
    totals, counts = (
        np.bincount(cell, weights, minlength=shape[0] * shape[1]).reshape(shape)
        for weights in (values, np.ones(len(values)))
    )
    freedoms = [_freedom(e_x, of) for of in (of_row, of_column)]
    found = crossed_contrast(totals, counts, resampling, freedoms=freedoms)
    # Student's t of few documents may leave the range of correlations.
    low, high = np.clip([found.interval.low, found.interval.high], -1, 1).tolist()
    return replace(found, interval=replace(found.interval, low=low, high=high))


def token_correlation(
    tokens: TokenRows,
    kept: Float[np.ndarray, " token"],
    x: str,
    given: str | None,
    resampling: Resampling,
    *,
    crossed: bool,
) -> Contrast:
    """Correlation of preservation with rarity or surprise, without tokens that have no value.

    With `crossed`, token types are resampled as well as documents. If no token has a value, there
    is no correlation and no interval.
    """
    usable = np.isfinite(kept)
    if not usable.any():
        return _no_correlation(resampling, 0)
    values = {RARITY: tokens.rarity[usable], SURPRISE: tokens.surprise[usable]}
    y, document = kept[usable], tokens.document[usable]
    third = None if given is None else values[given]
    if crossed:
        kinds = tokens.token[usable]
        return crossed_spearman(y, values[x], document, kinds, resampling, given=third)
    return spearman(y, values[x], document, resampling, given=third)


def copy_correlation(
    items: pd.DataFrame,
    kept: Float[np.ndarray, " item"],
    comparison: str,
    resampling: Resampling,
    *,
    crossed: bool,
) -> Contrast:
    """Correlation of preservation at the first occurrence with copying at the second, by word.

    With `crossed`, sentences are resampled as well as words; the near and the far version of a
    sentence are one.
    """
    copied = items["copy_log_prob"].to_numpy(dtype=np.float64)
    frames = items["group"] + " " + items["frame"]
    if comparison == WITHIN:
        # Near and far are different sentences.
        words = (items["group"] + " " + items["said"]).to_numpy()
        sentences = (frames + " " + items["distance"]).to_numpy()
        kept, copied = (doubly_centred(values, words, sentences) for values in (kept, copied))
    said = items["said"].to_numpy()
    if crossed:
        return crossed_spearman(copied, kept, said, frames.to_numpy(), resampling)
    return spearman(copied, kept, said, resampling)


def doubly_centred(
    values: Float[np.ndarray, " item"], rows: np.ndarray, columns: np.ndarray
) -> Float[np.ndarray, " item"]:
    """Values minus the means of their row and of their column, by least squares.

    The residuals vary neither with the row alone nor with the column alone. Subtraction is repeated
    until both kinds of means vanish, since a row need not have every column.
    """
    left = np.asarray(values, dtype=np.float64)
    _, row = np.unique(rows, return_inverse=True)
    _, column = np.unique(columns, return_inverse=True)
    for _ in range(200):
        before = left
        for of in (row, column):
            left = left - (np.bincount(of, left) / np.bincount(of))[of]
        if np.abs(left - before).max() < 1e-12:
            break
    return left


def _no_correlation(resampling: Resampling, n: int) -> Contrast:
    nan = float("nan")
    return Contrast(Interval(nan, nan, nan, resampling.level, "none", n), 1.0)


def _freedom(e_x: Float[np.ndarray, " token"], of_cluster: np.ndarray) -> float:
    variances = np.bincount(of_cluster, e_x) ** 2 + np.bincount(of_cluster, e_x**2)
    return float(variances.sum() ** 2 / (variances**2).sum())


def _standard_ranks(values: Float[np.ndarray, " token"]) -> Float[np.ndarray, " token"]:
    ranked = stats.rankdata(values)
    # Centred and scaled, so that sums of squares lose no digits.
    return (ranked - ranked.mean()) / max(float(ranked.std()), 1e-300)


def _correlation(sums: Sequence[Numbers], n_variables: int) -> Numbers:
    """Pearson's correlation of the first two variables, given the third if there is one."""
    count, means = sums[0], [s / sums[0] for s in sums[1 : 1 + n_variables]]
    products = iter(sums[1 + n_variables :])
    covariance = {
        (i, j): next(products) / count - means[i] * means[j]
        for i in range(n_variables)
        for j in range(i, n_variables)
    }

    def correlation(i: int, j: int) -> Numbers:
        variances = np.maximum(covariance[i, i] * covariance[j, j], 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return covariance[i, j] / np.sqrt(variances)

    plain = correlation(0, 1)
    if n_variables == 2:
        return plain
    with_third, third_with = correlation(0, 2), correlation(1, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = np.sqrt((1 - with_third**2) * (1 - third_with**2))
        return (plain - with_third * third_with) / rest
