"""The bounds that the slopes experiment states, on planted grids."""

import pandas as pd
import pytest

from lens_interventions.experiments.slopes.analysis import bound, bound_of_news
from tests.support.small_slopes import SMALL


def test_bounds_are_of_the_loss_at_the_largest_weak_strength() -> None:
    ends = ["estimate", "low", "high"]
    grid = pd.DataFrame(
        [
            ("add", 0, "true", "", -5.0, -6.0, -4.0),
            ("add", 1, "true", "", -1.0, -2.0, 0.5),
            ("add", 0, "true", "current", -3.0, -4.0, -2.0),
            ("add", 0, "true", "random", -2.0, -3.5, -0.5),
            ("add", 1, "true", "current", -9.0, -9.5, -8.5),
            ("add", 1, "true", "random", 1.0, 0.5, 1.5),
        ],
        columns=["mode", "layer", "source", "minus", *ends],
    ).assign(p_value=0.01, n=7)
    slopes, leads = grid[grid["minus"] == ""], grid[grid["minus"] != ""]
    # A lead at a layer is that over the control that does best there.
    expected = {
        bound: slopes[ends].min(),
        bound_of_news: leads.groupby(["mode", "layer"])[ends].max().min(),
    }
    for stated, lowest in expected.items():
        interval = stated(slopes if stated is bound else grid, SMALL).interval
        found = [interval.estimate, interval.low, interval.high]
        # One product in float64.
        assert found == pytest.approx((0.03 * lowest).tolist(), rel=1e-12)
    assert SMALL.weak == 0.03
