"""p-values that invert a bootstrap interval."""

import numpy as np
import pytest
from jaxtyping import Float
from scipy import stats

from lens_interventions.measures.bootstrap import bootstrap_p_value

RESAMPLES = 1999


def mean(values: np.ndarray, axis: int) -> np.ndarray:
    return values.mean(axis)


def scipy_bootstrap(values: Float[np.ndarray, " seq"], error: float):
    return stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=1 - error,
        method="BCa",
        rng=np.random.default_rng(7),
    )


def p_value(values: Float[np.ndarray, " seq"]) -> float:
    distribution = scipy_bootstrap(values, 0.05).bootstrap_distribution
    return bootstrap_p_value([values[None]], mean, distribution)


@pytest.mark.parametrize("shift", [-0.2, 0.15, 0.3])
def test_an_interval_leaves_out_zero_where_its_error_is_larger(shift: float) -> None:
    values = np.random.default_rng(3).exponential(size=40) - 1 + shift
    p = p_value(values)
    tolerance = 0.02 / (RESAMPLES + 1)
    for error in (p / 2, p - tolerance, p + tolerance, min(2 * p, 0.99)):
        interval = scipy_bootstrap(values, error).confidence_interval
        assert (interval.low > 0 or interval.high < 0) == (error > p), error


def test_the_smallest_is_what_the_resamples_can_tell() -> None:
    assert p_value(np.random.default_rng(0).normal(3, 1, 50)) == 2 / (RESAMPLES + 1)


def test_without_an_effect_one_in_twenty_is_below_a_twentieth() -> None:
    rng = np.random.default_rng(1)
    found = np.array([p_value(rng.normal(size=30)) for _ in range(200)])
    # 20 of 200 would be 3 standard deviations above 10; a bootstrap of 30 rejects a little often.
    assert 2 <= (found <= 0.05).sum() <= 22
    assert 0.4 < np.median(found) < 0.6
