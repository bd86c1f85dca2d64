"""From which point on a word is found."""

import pytest

from lens_interventions.pages.demo.plasma import found_from


@pytest.mark.parametrize(
    ("ranks", "top", "point"),
    [
        ([900, 5, 0, 0], 1, 2),
        ([900, 5, 0, 0], 10, 1),
        ([0, 900, 0], 1, 2),  # found, lost, and found for good
        ([0, 0], 1, 0),
        ([900, 5], 1, None),
    ],
)
def test_a_word_is_found_where_it_stays_at_the_top(ranks, top, point):
    assert found_from(ranks, top=top) == point
