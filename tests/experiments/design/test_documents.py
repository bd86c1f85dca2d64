"""Which points are the middle of a model, and which documents are read."""

import pytest

from lens_interventions.experiments.design.documents import has_components, middle


@pytest.mark.parametrize(
    ("n_points", "expected"),
    [(2, [0]), (3, [1]), (4, [1]), (6, [2, 3]), (19, list(range(6, 12)))],
)
def test_the_middle_is_a_third_of_the_points_and_never_empty(n_points, expected):
    assert middle([str(point) for point in range(n_points)]).tolist() == expected


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [([1, 5, 5, 6], True), ([1, 5, 6], False), ([1, 5, 5, 5, 5], False), ([5, 5, 5, 1], True)],
)
def test_a_document_needs_two_different_tokens_after_the_first(tokens, expected):
    assert has_components(tokens) == expected
