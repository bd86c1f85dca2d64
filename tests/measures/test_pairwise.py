"""Values of texts that were compared with all others, against leaving texts out."""

import numpy as np

from lens_interventions.measures.pairwise import pairwise_values


def shares(sums: np.ndarray, inside: slice) -> np.ndarray:
    """The share of some columns in the product of each text with the sum of all others."""
    products = sums * (sums.sum(0) - sums)
    return products[:, inside].sum(1) / products.sum(1)


def test_their_mean_varies_as_if_texts_were_left_out():
    rng = np.random.default_rng(0)
    sums = np.linspace(1, 2, 20) + 0.2 * rng.standard_normal((200, 20))
    values = shares(sums, slice(5))
    n = len(values)
    without = [shares(np.delete(sums, left_out, 0), slice(5)).mean() for left_out in range(n)]
    jackknife = np.sqrt((n - 1) * np.var(without))
    prepared = pairwise_values(values)
    np.testing.assert_allclose(prepared.mean(), values.mean())
    # First order: what is left out is of the order of 1 / n.
    np.testing.assert_allclose(prepared.std(ddof=1) / np.sqrt(n), jackknife, rtol=0.05)


def test_cells_are_apart():
    values = np.array([[1.0, 3.0], [5.0, 5.0]])
    np.testing.assert_array_equal(pairwise_values(values), [[0.0, 4.0], [5.0, 5.0]])
