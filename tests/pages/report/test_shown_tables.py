"""Numbers of a table as a reader sees them."""

import numpy as np
import pandas as pd

from lens_interventions.pages.report.shown_tables import ShownTable, shown_tables


def test_numbers_of_every_precision_have_three_digits() -> None:
    values = [-0.123456, float("nan")]
    rows = pd.DataFrame({"double": values, "single": np.array(values, np.float32), "n": [1234, 5]})
    (table,) = shown_tables({"main": rows})
    assert isinstance(table, ShownTable)
    assert table.rows == (("−0.123", "−0.123", "1234"), ("", "", "5"))
