"""Sums by row, and what is made of them."""

import numpy as np
import pandas as pd

from lens_interventions.experiments.design.rows_of_sums import range_of_seeds


def test_a_seed_without_numbers_has_no_mean():
    rows = pd.DataFrame(
        {"step": [0] * 3, "seed": [0, 0, 1], "total": [4.0, 2.0, np.nan], "count": [2, 1, 3]}
    )
    (found,) = range_of_seeds(rows, ["step"]).to_dict("records")
    assert found == {"step": 0, "mean": 2.0, "lowest": 2.0, "highest": 2.0}
