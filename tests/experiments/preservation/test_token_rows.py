"""Tokens as arrays."""

import numpy as np
import pandas as pd
from numpy.testing import assert_allclose

from lens_interventions.experiments.preservation.token_rows import token_rows


def test_a_token_s_rarity_leaves_its_own_document_out() -> None:
    counts = pd.DataFrame(
        {
            "document": ["a", "a", "b", "b"],
            "token": [5, 6, 5, 7],
            "count": [100, 1, 3, 6],
            "d_vocab": 112,
        }
    )
    point = {"surprisal": 1.0, "rank": 0, "log_prob": 0.0}
    elsewhere = {"elsewhere_rank": 1.0, "elsewhere_log_prob": 0.0}
    rows = pd.DataFrame(
        [
            {"document": d, "token": t, "point": 0, "label": "0_pre", **point, **elsewhere}
            for d, t in (("a", 5), ("b", 5))
        ]
    )
    rarity = token_rows(rows, counts).rarity
    total = np.log([9 + 56, 101 + 56])  # half a count for each of 112 tokens
    assert_allclose(rarity, total - np.log([3.5, 100.5]), atol=1e-12)
