"""Which points are the middle of a model."""

import pytest

from lens_interventions.experiments.design.documents import middle


@pytest.mark.parametrize(
    ("n_points", "expected"),
    [(2, [0]), (3, [1]), (4, [1]), (6, [2, 3]), (19, list(range(6, 12)))],
)
def test_the_middle_is_a_third_of_the_points_and_never_empty(n_points, expected):
    assert middle([str(point) for point in range(n_points)]).tolist() == expected
