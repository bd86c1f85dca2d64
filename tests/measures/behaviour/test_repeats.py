"""Tokens that stood earlier in the text, and surprised there."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_interventions.measures import behaviour
from tests.support import reference_measures as naive

SIZES = st.tuples(st.integers(1, 3), st.integers(1, 24))
NATS = st.sampled_from([1.0, 6.0, 9.0, math.nan])


def _rows(size, entries):
    rows, columns = size
    row = st.lists(entries, min_size=columns, max_size=columns)
    return st.lists(row, min_size=rows, max_size=rows)


def test_repeats_of_surprises_by_hand():
    tokens = torch.tensor([[5, 6, 7, 5, 6, 8, 7, 9, 8, 7]])
    nats = torch.tensor([[1.0, 9.0, 9.0, 1.0, 9.0, 1.0, 1.0, 1.0, 1.0]])
    # 7 and 8 come again and surprised at first; 6 did not; 5 opened the text.
    distance = behaviour.surprise_distance(tokens, nats, 5.0)
    assert distance.tolist() == [[0, 0, 0, 0, 0, 4, 0, 3, 7]]


def test_padding_is_not_taken_for_a_token_that_comes_again():
    with pytest.raises(ValueError, match="an id is -1, and padding is no token"):
        behaviour.surprise_distance(torch.tensor([[7, 8, -1, -1]]), torch.full((1, 3), 9.0), 5.0)


@given(SIZES.flatmap(lambda size: st.tuples(_rows(size, st.integers(0, 3)), _rows(size, NATS))))
@settings(max_examples=200, deadline=None)
def test_repeats_of_surprises_equal_the_naive_version(drawn):
    texts, surprisals = drawn
    nats = [row[1:] for row in surprisals]
    found = behaviour.surprise_distance(torch.tensor(texts), torch.tensor(nats), 6.0)
    assert found.tolist() == [
        naive.surprise_distance(*row, 6.0) for row in zip(texts, nats, strict=True)
    ]
