"""Surprisal, and bins of it."""

import math

import pytest
import torch

from lens_interventions.measures import behaviour


def test_bins_close_on_the_left_and_are_open_outside():
    values = torch.tensor([[-5.0, 0.99, 1.0, 1.5], [2.0, 4.0, math.inf, math.nan]])
    bins = behaviour.bin_by(values, [1.0, 2.0, 4.0])
    whole = behaviour.bin_by(torch.tensor([[0, 1, 2, 3]]), [0.5, 1.5])
    assert whole.index.tolist() == [[0, 1, 2, 2]]
    assert bins.index.tolist() == [[0, 0, 1, 1], [2, 3, 3, -1]]
    assert bins.labels == ("below 1", "1 to 2", "2 to 4", "4 and more")


def test_an_edge_may_not_fit_into_the_values_own_digits():
    values = torch.tensor([[1.0, 1.0078125]], dtype=torch.bfloat16)
    assert behaviour.bin_by(values, [1.002]).index.tolist() == [[0, 1]]
    below = torch.tensor([[0.7]])  # the float32 next to 0.7 is smaller
    assert behaviour.bin_by(below, [0.7]).index.tolist() == [[0]]
    assert behaviour.bin_by(torch.tensor([[2.0**24]]), [2.0**24, 2.0**24 + 1]).index.item() == 1
    assert behaviour.bin_by(torch.tensor([[-torch.inf]]), [-1e39, 0.0]).index.item() == 0
    assert behaviour.bin_by(torch.tensor([[2**63 - 1]]), [0.0, 1e30]).index.item() == 1
    assert behaviour.bin_by(torch.tensor([[-(2**63)]]), [-1e30, 0.0]).index.item() == 1
    assert behaviour.bin_by(torch.tensor([[2**53]]), [2**53 + 1]).index.item() == 0
    whole = torch.tensor([[1000, 1001]], dtype=torch.int16)
    assert behaviour.bin_by(whole, [1000.00001]).index.tolist() == [[0, 1]]


@pytest.mark.parametrize("edges", [[], [2.0, 1.0], [1.0, 1.0], [0.0, math.inf]])
def test_bad_edges_are_refused(edges):
    with pytest.raises(ValueError, match="increasing order"):
        behaviour.bin_by(torch.zeros(1, 1), edges)


def test_bin_totals_by_hand():
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, math.nan, 6.0]])
    bins = torch.tensor([[0, 1, 0], [1, 1, -1]])
    totals, counts = behaviour.bin_totals(values, bins, 3)
    assert totals.tolist() == [[4, 2, 0], [0, 4, 0]]
    assert counts.tolist() == [[2, 1, 0], [0, 1, 0]]
    with pytest.raises(ValueError, match="between -1 and 0"):
        behaviour.bin_totals(values, bins, 1)


def test_unigram_surprisal_by_hand():
    surprisal = behaviour.unigram_surprisal(torch.tensor([3, 1, 0]), smoothing=1.0)
    expected = [-math.log(4 / 7), -math.log(2 / 7), -math.log(1 / 7)]
    assert surprisal.tolist() == pytest.approx(expected, abs=1e-12)
    probabilities = (-behaviour.unigram_surprisal(torch.tensor([3, 1, 0]))).exp()
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-12)


def test_unigram_surprisal_refuses_infinite_surprise():
    with pytest.raises(ValueError, match="smoothing > 0"):
        behaviour.unigram_surprisal(torch.tensor([1, 0]), smoothing=0.0)
    with pytest.raises(ValueError, match="counts >= 0"):
        behaviour.unigram_surprisal(torch.tensor([1, -1]))
