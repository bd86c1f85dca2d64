"""The most that any cell gains, where words are crossed with frames."""

import numpy as np
import pytest

from lens_interventions.experiments.copying.bounds import together
from lens_interventions.experiments.design.contrasts import Resampling
from lens_interventions.measures.crossed import crossed_mean_interval


def test_crossed_cells_are_held_together_by_bonferroni() -> None:
    rng = np.random.default_rng(0)
    gains, counts = rng.normal(size=(5, 6, 4)), np.ones((6, 4))
    estimates, high = together(gains, counts, Resampling(n_resamples=499, seed=3))
    np.testing.assert_allclose(estimates, gains.mean((1, 2)))
    for gain, end in zip(gains, high, strict=True):
        alone, corrected = (
            crossed_mean_interval(
                gain, counts, rng=np.random.default_rng(3), level=level, n_resamples=499
            )
            for level in (0.95, 0.99)
        )
        assert end == pytest.approx(corrected.high, rel=1e-9)
        assert end > alone.high
