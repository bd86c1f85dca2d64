"""What slopes and curvatures of one half predict."""

import pandas as pd
import pytest

from lens_interventions.experiments import SlopesSettings
from lens_interventions.experiments.slopes.prediction import predicted

SETTINGS = SlopesSettings.preset("quick")
CELL = {"material": "prose", "layer": 3, "source": "true"}


def test_the_half_that_selects_predicts_the_lowest_point_of_its_parabola() -> None:
    mode, other = SETTINGS.modes[0], "another mode"
    slopes = pd.DataFrame(
        {**CELL, "half": half, "mode": name, "total": total, "count": 10}
        for half, name, total in (
            ("selection", mode, -1.5),
            ("selection", mode, -0.5),
            ("report", mode, -90.0),
            ("selection", other, 70.0),
        )
    )
    # Sums of what a step up and a step down change together, so curvature * step² a prediction.
    curvature, n = 4.0, 20
    each = curvature * SETTINGS.step**2 / 2 * n
    curvatures = pd.DataFrame({**CELL, "total": each, "count": n} for _ in range(2))
    (row,) = predicted(SETTINGS, slopes, curvatures).to_dict("records")
    slope = -2.0 / 20
    assert row["slope"] == pytest.approx(slope)
    assert row["curvature"] == pytest.approx(curvature)
    strength = min(-slope / curvature, SETTINGS.strongest)
    assert row["strength"] == pytest.approx(strength)
    assert row["change"] == pytest.approx(slope * strength + curvature * strength**2 / 2)
