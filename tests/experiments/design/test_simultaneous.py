"""Simultaneous bands: they cover all cells together, and are what a plain loop makes."""

import numpy as np
import pytest
from scipy import stats

from lens_interventions.experiments.design.contrasts import Resampling
from lens_interventions.experiments.design.simultaneous import simultaneous_band


def test_a_band_is_what_a_loop_over_resamples_makes() -> None:
    rng = np.random.default_rng(1)
    totals, counts = rng.normal(3, 1, (5, 9)), rng.integers(1, 6, 9).astype(float)
    resampling = Resampling(n_resamples=40, seed=2)
    found = simultaneous_band(totals, counts, resampling)
    draws = np.random.default_rng(2).multinomial(9, np.full(9, 1 / 9), size=40)

    def mean(cell: np.ndarray, times: np.ndarray) -> float:
        return float(np.repeat(cell, times).sum() / np.repeat(counts, times).sum())

    estimates = np.array([mean(cell, np.ones(9, int)) for cell in totals])
    errors = np.array(
        [
            np.std(cell - estimate * counts, ddof=1) * 3 / counts.sum()
            for cell, estimate in zip(totals, estimates, strict=True)
        ]
    )
    largest = [
        max(
            abs(mean(cell, times) - estimate) / error
            for cell, estimate, error in zip(totals, estimates, errors, strict=True)
        )
        for times in draws
    ]
    # Means of resamples vary by n / (n - 1) too little.
    tail = stats.norm.cdf(-np.quantile(largest, 0.95) * np.sqrt(9 / 8))
    reach = -stats.t.ppf(tail, 8) * errors
    np.testing.assert_allclose(found.estimates, estimates, rtol=1e-12)
    np.testing.assert_allclose(found.low, estimates - reach, rtol=1e-9)
    np.testing.assert_allclose(found.high, estimates + reach, rtol=1e-9)


def test_a_p_value_is_the_smallest_error_at_which_the_band_leaves_out_zero() -> None:
    rng = np.random.default_rng(3)
    # From cells that lie at 0 to cells far from it.
    totals = rng.normal(0, 1, (12, 30)) + np.linspace(0, 1.2, 12)[:, None]
    counts, n_resamples = np.ones(30), 999
    found = simultaneous_band(totals, counts, Resampling(n_resamples=n_resamples))
    assert (found.p_values > 0.5).any()
    assert ((found.p_values > 0.002) & (found.p_values < 0.2)).any()
    # The ends are quantiles between two resamples, and the p-value counts whole ones.
    step = 2 / (n_resamples + 1)
    for error in (0.2, 0.05, 0.01):
        band = simultaneous_band(totals, counts, Resampling(1 - error, n_resamples))
        outside = (band.low > 0) | (band.high < 0)
        assert outside[found.p_values < error - step].all()
        assert not outside[found.p_values > error + step].any()
    assert found.p_values.min() >= 1 / (n_resamples + 1)


def test_a_p_value_is_no_finer_than_that_of_flipped_signs() -> None:
    """Of six sequences that all agree in sign, a cell that varies and one that does not."""
    totals = np.array([np.linspace(10, 11, 6), np.full(6, 10.0)])
    found = simultaneous_band(totals, np.ones(6), Resampling(n_resamples=999))
    flipped = stats.permutation_test(
        (totals[0],), np.sum, permutation_type="samples", n_resamples=np.inf
    )
    np.testing.assert_allclose(found.p_values, flipped.pvalue)


def test_cells_at_zero_are_seldom_told_from_it_with_any_of_them() -> None:
    rng = np.random.default_rng(4)
    resampling = Resampling(n_resamples=199)
    least = [
        simultaneous_band(rng.normal(size=(20, 25)), np.ones(25), resampling).p_values.min()
        for _ in range(300)
    ]
    # 5% of 300, and five standard deviations of that.
    assert np.mean(np.array(least) <= 0.05) == pytest.approx(0.05, abs=0.063)


def test_a_band_covers_all_cells_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    resampling = Resampling(n_resamples=199)
    held = 0
    for _ in range(300):
        shared = rng.normal(size=(1, 40))
        totals = shared + rng.normal(size=(60, 40))
        found = simultaneous_band(totals, np.ones(40), resampling)
        held += bool(((found.low < 0) & (found.high > 0)).all())
    # 95% of 300, and five standard deviations of that.
    assert held / 300 == pytest.approx(0.95, abs=0.063)


def test_cells_that_do_not_vary_have_no_width_and_one_sequence_has_no_band() -> None:
    resampling = Resampling(n_resamples=99)
    counts = np.array([1.0, 2.0, 3.0])
    found = simultaneous_band(np.stack([2 * counts, counts**2]), counts, resampling)
    assert found.low[0] == pytest.approx(2, abs=1e-12)
    assert found.high[0] == pytest.approx(2, abs=1e-12)
    assert found.low[1] < found.estimates[1] < found.high[1]
    alone = simultaneous_band(np.array([[2.0, 0.0]]), np.array([1.0, 0.0]), resampling)
    assert np.isnan(alone.low).all()
    assert (alone.p_values == 1).all()
    assert alone.estimates.tolist() == [2.0]


def test_a_cell_that_is_always_zero_is_not_told_from_it():
    totals = np.stack([np.zeros(6), np.linspace(10, 11, 6)])
    found = simultaneous_band(totals, np.ones(6), Resampling(n_resamples=99))
    assert found.p_values[0] == 1
    assert (found.low[0], found.high[0]) == (0, 0)
