"""Intervals and tests, against scipy and naive versions."""

import math
import tracemalloc

import numpy as np
import pytest
from scipy import stats

from lens_interventions.measures.intervals import (
    Interval,
    holm,
    mean_interval,
    mean_intervals,
    share_difference_interval,
    share_interval,
    sign_flip_p_values,
)
from lens_interventions.measures.verdicts import smallest_visible
from tests.support import reference_measures as naive
from tests.support.scipys_bootstrap import ends_of_scipy


def ragged(rng, cells, n):
    """Totals and counts of sequences of unequal length, skewed."""
    counts = rng.integers(5, 60, (cells, n))
    return rng.gamma(2.0, size=(cells, n)) * counts, counts


@pytest.mark.parametrize("n", [25, 4001])  # 4,001 sequences are drawn and left out in blocks
def test_equals_scipy_with_the_same_draws(n):
    totals, counts = ragged(np.random.default_rng(0), 3, n)
    found = mean_intervals(totals, counts, rng=np.random.default_rng(7), n_resamples=500)
    for cell, interval in enumerate(found):
        expected = ends_of_scipy(totals[cell], counts[cell], seed=7, n_resamples=500)
        assert interval.method == "BCa"
        assert interval.n == n
        # sums by a matrix product differ in the last digits only
        assert (interval.low, interval.high) == pytest.approx(expected, rel=1e-9)
        assert interval.estimate == pytest.approx(totals[cell].sum() / counts[cell].sum())


def test_many_sequences_have_scipys_percentiles_which_need_no_sequence_left_out():
    totals, counts = ragged(np.random.default_rng(0), 2, 5001)
    found = mean_intervals(totals, counts, rng=np.random.default_rng(7), n_resamples=500)
    for cell, interval in enumerate(found):
        expected = ends_of_scipy(
            totals[cell], counts[cell], seed=7, n_resamples=500, method="percentile"
        )
        assert (interval.method, interval.n) == ("percentile", 5001)
        assert (interval.low, interval.high) == pytest.approx(expected, rel=1e-9)


def test_an_interval_does_not_depend_on_the_unit():
    """In tenths the sums of resamples that equal the estimate are rounded in other ways."""
    values = np.array([3] * 4 + [1] * 8)
    whole, tenths = (
        mean_interval(scaled, rng=np.random.default_rng(0)) for scaled in (values, values * 0.1)
    )
    ends = [10 * tenths.low, 10 * tenths.high]
    assert ends == pytest.approx([whole.low, whole.high], rel=1e-9)
    assert tenths.method == whole.method


def test_equal_ratios_have_an_interval_without_width():
    counts = np.array([3, 7, 11, 13])
    interval = mean_interval(0.1 * counts, counts, rng=np.random.default_rng(0))
    assert interval.method == "percentile"
    assert interval.high == interval.low == pytest.approx(0.1)


def test_resamples_sequences_like_the_naive_version():
    totals, counts = (array[0] for array in ragged(np.random.default_rng(1), 1, 30))
    interval = mean_interval(totals, counts, rng=np.random.default_rng(1), n_resamples=4000)
    means = naive.bootstrap_means(totals.tolist(), counts.tolist(), 4000, seed=1)
    # BCa corrects skew, so its ends lie near, not at, the percentiles; resampling 30 x 32 tokens
    # as if they were independent would give an interval a fifth as wide.
    width = means[3900] - means[100]
    assert interval.low == pytest.approx(means[100], abs=0.2 * width)
    assert interval.high == pytest.approx(means[3900], abs=0.2 * width)


def test_an_interval_does_not_depend_on_the_cells_that_are_computed_with_it():
    # 200,000 resamples make blocks of 10 cells: three blocks here, all with the draws of one cell.
    totals, counts = ragged(np.random.default_rng(2), 21, 20)
    options = {"n_resamples": 200_000, "level": 0.9}
    together = mean_intervals(totals, counts, rng=np.random.default_rng(3), **options)
    for cell in (0, 20):
        rng = np.random.default_rng(3)
        alone = mean_interval(totals[cell], counts[cell], rng=rng, **options)
        # The order of a matrix product's sums depends on how many cells there are.
        assert (together[cell].low, together[cell].high) == pytest.approx(
            (alone.low, alone.high), rel=1e-12
        )


@pytest.mark.parametrize(("cells", "texts"), [(2, 3000), (30_000, 4)])
def test_memory_grows_neither_with_the_square_of_the_texts_nor_with_cells(cells, texts):
    totals, counts = ragged(np.random.default_rng(2), cells, texts)
    tracemalloc.start()
    mean_intervals(totals, counts, rng=np.random.default_rng(3), n_resamples=1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A block has 2 million numbers; a text left out in turn from 3,000 would be 9 million, and all
    # resamples of 30,000 cells 30 million.
    assert peak < 1.5e8


def test_the_seed_decides():
    totals = np.random.default_rng(4).normal(size=20)
    first, again, other = (
        mean_interval(totals, rng=np.random.default_rng(seed), n_resamples=300)
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_sequences_without_tokens_in_a_cell_are_left_out_of_it():
    totals = np.array([[1.0, 0.0, 3.0, 2.0], [1.0, 5.0, 3.0, 2.0]])
    counts = np.array([[1, 0, 1, 1], [1, 1, 1, 1]])
    with_gap, full = mean_intervals(totals, counts, rng=np.random.default_rng(5))
    alone = mean_interval(np.array([1.0, 3.0, 2.0]), rng=np.random.default_rng(5))
    assert with_gap == alone
    assert (with_gap.n, full.n) == (3, 4)
    assert with_gap.estimate == 2


def test_too_few_sequences_give_an_estimate_and_no_interval():
    one, none = mean_intervals(
        np.array([[6.0, 0.0], [0.0, 0.0]]),
        np.array([[3, 0], [0, 0]]),
        rng=np.random.default_rng(0),
    )
    assert (one.estimate, one.method, one.n) == (2, "none", 1)
    assert math.isnan(one.low)
    assert math.isnan(none.estimate)
    assert none.n == 0
    assert str(one) == "2 (no interval, n = 1)"


def test_data_without_variation_fall_back_to_percentiles_and_say_so():
    # 0.1 summed is not a multiple of 0.1 in floating point; the interval must not show it
    interval = mean_interval(np.full(30, 0.1), rng=np.random.default_rng(0))
    assert (interval.low, interval.high, interval.method) == (0.1, 0.1, "percentile")


def test_interval_reads_well():
    interval = Interval(0.12345, -0.01, 0.3, 0.95, "BCa", 64)
    assert str(interval) == "0.123 [-0.01, 0.3] (95% BCa, n = 64)"


@pytest.mark.parametrize(
    ("totals", "counts", "reason"),
    [
        ([1.0, math.nan], [1, 1], "finite"),
        ([1.0, 1.0], [1, -1], "not negative"),
    ],
)
def test_bad_data_are_refused(totals, counts, reason):
    with pytest.raises(ValueError, match=reason):
        mean_interval(np.array(totals), np.array(counts), rng=np.random.default_rng(0))


def test_intervals_cover_what_they_should():
    """95% intervals of 400 simulated experiments, all at once as 400 cells."""
    rng = np.random.default_rng(11)
    n_experiments, n = 400, 60
    counts = rng.integers(20, 60, (n_experiments, n))
    # token values share their sequence's level: the case that resampling tokens gets wrong
    totals = (rng.normal(size=(n_experiments, n)) + 0.3) * counts
    found = mean_intervals(totals, counts, rng=rng, n_resamples=1000)
    covered = sum(interval.low <= 0.3 <= interval.high for interval in found)
    # A bootstrap of 60 sequences covers a little less than 95%, some 94%; 99.9% of
    # seeds stay in this range, binomial with a standard deviation of 4.7 experiments.
    low, high = stats.binom.interval(0.999, n_experiments, 0.94)
    assert low <= covered <= high


def test_share_interval_is_wilsons():
    interval = share_interval(0, 64)
    z = stats.norm.isf(0.025)
    assert interval.low == 0
    assert interval.high == pytest.approx(z**2 / (64 + z**2), abs=1e-12)
    with pytest.raises(ValueError, match="65 of 64"):
        share_interval(65, 64)


def test_levels_are_shares():
    some = np.array([True, False])
    with pytest.raises(ValueError, match="0 < level < 1, got 95"):
        share_difference_interval(some, some, level=95)
    with pytest.raises(ValueError, match="0 < level < 1, got 1"):
        share_interval(2, 10, level=1)
    with pytest.raises(ValueError, match="between 0 and 1, got 95"):
        smallest_visible(1.0, level=95)


def test_share_difference_by_hand():
    # 20 pairs; only the first succeeds in 6, only the second in 1
    first = np.array([True] * 6 + [False] + [True] * 4 + [False] * 9)
    second = np.array([False] * 6 + [True] + [True] * 4 + [False] * 9)
    interval = share_difference_interval(first, second)
    up, down = 7 / 22, 2 / 22
    half = 1.959963984540054 * math.sqrt((up + down - (up - down) ** 2) / 22)
    assert interval.estimate == pytest.approx(5 / 20)
    assert interval.low == pytest.approx(up - down - half, abs=1e-12)
    assert interval.high == pytest.approx(up - down + half, abs=1e-12)


def test_shares_that_never_differ_still_have_an_uncertain_difference():
    nothing = np.zeros(64, dtype=bool)
    interval = share_difference_interval(nothing, nothing)
    assert interval.low < 0 < interval.high


def test_sign_flip_is_exact_for_few_sequences():
    differences = np.random.default_rng(0).normal(0.5, 1, (4, 9))
    found = sign_flip_p_values(differences, rng=np.random.default_rng(0))
    expected = [naive.sign_flip_p_value(row) for row in differences.tolist()]
    assert found == pytest.approx(expected, abs=1e-12)


def test_sign_flip_of_differences_that_cancel_has_nothing_to_tell():
    """Their sum is not quite 0 in tenths."""
    cancelling = np.array([[1, 1, 1, -1, -1, -1, 0, 0]])
    for unit in (1, 0.1):
        assert sign_flip_p_values(unit * cancelling, rng=np.random.default_rng(0)) == 1


def test_sign_flip_equals_scipy_with_the_same_flips():
    differences = np.random.default_rng(1).normal(0.2, 1, (3, 40))
    found = sign_flip_p_values(differences, rng=np.random.default_rng(5), n_resamples=999)
    for row, p_value in zip(differences, found, strict=True):
        expected = stats.permutation_test(
            (row,),
            np.sum,
            permutation_type="samples",
            n_resamples=999,
            rng=np.random.default_rng(5),
        ).pvalue
        assert p_value == pytest.approx(expected, abs=1e-12)


def test_sign_flip_has_its_size_under_the_null():
    rng = np.random.default_rng(3)
    p_values = sign_flip_p_values(rng.standard_t(3, (1000, 30)), rng=rng, n_resamples=999)
    for alpha in (0.05, 0.2):
        # The test is exact: rejections are binomial. 99.9% of seeds stay in this range.
        low, high = stats.binom.interval(0.999, 1000, alpha)
        assert low <= (p_values <= alpha).sum() <= high


def test_sign_flip_refuses_what_it_cannot_flip():
    with pytest.raises(ValueError, match="at least two"):
        sign_flip_p_values(np.ones((2, 1)), rng=np.random.default_rng(0))


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("call", "shape", "message"),
    [
        (mean_interval, (2, 5), r"\[seq\], got shape \(2, 5\): for several cells"),
        (mean_intervals, (5,), r"\[cell, seq\], got shape \(5,\): for one cell"),
        (sign_flip_p_values, (5,), r"\[cell, seq\] of at least two sequences, got shape \(5,\)"),
    ],
)
def test_other_shapes_are_refused(call, shape, message):
    with pytest.raises(ValueError, match=message):
        call(np.ones(shape), rng=np.random.default_rng(0))


def test_holm_by_hand():
    # sorted 0.005 0.01 0.03 0.04, times 4 3 2 1: 0.02 0.03 0.06 0.04, the last raised to 0.06
    found = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    assert found == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.9])).tolist() == [1, 1]
    assert holm(np.array([])).tolist() == []
    grid = np.array([[0.01, 0.04], [0.03, 0.005]])
    assert holm(grid) == pytest.approx(np.array([[0.03, 0.06], [0.06, 0.02]]))


def test_holm_refuses_a_nan():
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm(np.array([0.1, math.nan]))


def test_a_difference_of_shares_is_never_larger_than_one():
    yes, no = np.ones(2, dtype=bool), np.zeros(2, dtype=bool)
    assert share_difference_interval(yes, no).high == 1
    assert share_difference_interval(no, yes).low == -1


def test_what_is_left_out_by_a_count_of_0_may_be_missing() -> None:
    totals, counts = np.array([[math.nan, 1.0, 2.0, 4.0]]), np.array([[0, 1, 1, 1]])
    (found,) = mean_intervals(totals, counts, rng=np.random.default_rng(0))
    (without,) = mean_intervals(totals[:, 1:], counts[:, 1:], rng=np.random.default_rng(0))
    assert found == without
    with pytest.raises(ValueError, match="must be finite"):
        mean_intervals(totals, np.ones_like(counts), rng=np.random.default_rng(0))


@pytest.mark.usefixtures("as_users_run")
def test_shares_are_compared_as_lists_too() -> None:
    lists = [True, False, True, True], [False, False, True, False]
    found = share_difference_interval(*lists)  # type: ignore[arg-type]
    assert found == share_difference_interval(*map(np.array, lists))
