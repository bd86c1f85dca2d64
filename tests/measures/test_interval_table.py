"""Tables of means, against scipy's bootstrap with the same draws."""

import numpy as np
import pytest

from lens_interventions.measures.interval_table import interval_rows, interval_table
from tests.support.scipys_bootstrap import ends_of_scipy


@pytest.mark.parametrize("seed", [0, 5])
def test_a_table_has_the_interval_of_each_cell_with_the_draws_of_its_seed(seed):
    rng = np.random.default_rng(1)
    counts = rng.integers(5, 60, (2, 25))
    totals = rng.gamma(2.0, size=(2, 25)) * counts
    places = [{"layer": layer, "kind": "clean"} for layer in (3, 8)]
    table = interval_table(zip(places, totals, counts, strict=True), level=0.9, seed=seed)
    assert list(table) == ["layer", "kind", "estimate", "low", "high", "n"]
    assert table["layer"].tolist() == [3, 8]
    assert table["n"].tolist() == [25, 25]
    np.testing.assert_allclose(table["estimate"], totals.sum(1) / counts.sum(1), rtol=1e-12)
    for cell, row in table.iterrows():
        expected = ends_of_scipy(totals[cell], counts[cell], seed=seed, confidence_level=0.9)
        # Sums by a matrix product differ in the last digits only.
        assert (row["low"], row["high"]) == pytest.approx(expected, rel=1e-9)
    rows = interval_rows(places, totals, counts, level=0.9, seed=seed, mean="mean")
    assert [row["mean"] for row in rows] == table["estimate"].tolist()
