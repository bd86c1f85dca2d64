"""Which predictions of a text count, and their sums."""

import pytest
import torch

from lens_interventions.experiments.design.rows_of_sums import masked_sums, sum_rows
from lens_interventions.experiments.design.text_scopes import (
    ALL,
    COPYABLE,
    OTHER,
    scopes_of,
    second_copy,
)


def test_a_token_is_copyable_or_another():
    scopes = scopes_of(torch.tensor([[1, 2, 3, 1, 2, 4]]))
    assert scopes[COPYABLE].tolist() == [[False, False, False, True, False]]
    assert scopes[ALL].all()
    assert torch.equal(scopes[OTHER], ~scopes[COPYABLE])


@pytest.mark.parametrize("first", [[], [0]])
def test_a_second_copy_counts_from_its_second_token(first):
    text = torch.tensor([[*first, 5, 6, 7, 5, 6, 7]])
    predicted = text[:, 1:][second_copy(text)]
    assert predicted.tolist() == [6, 7]


def test_sums_are_of_what_counts():
    values = torch.tensor([[1.0, 2.0, 4.0], [8.0, torch.inf, 32.0]])
    counted = torch.tensor([[True, False, True], [True, False, False]])
    assert sum_rows({"scope": "some"}, ["a", "b"], *masked_sums(values, counted)) == [
        {"scope": "some", "row": 0, "cluster": "a", "total": 5.0, "count": 2},
        {"scope": "some", "row": 1, "cluster": "b", "total": 8.0, "count": 1},
    ]
