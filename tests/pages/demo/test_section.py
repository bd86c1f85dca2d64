"""What a section says of its finding."""

import pytest

from lens_interventions.pages.demo.section import Condition, Section


def section(*holds):
    conditions = tuple(Condition("something", hold, "1") for hold in holds)
    return Section("name", "title", "claim", conditions, text=(), figures=())


@pytest.mark.parametrize(
    ("holds", "verdict"),
    [
        ((True, True), "agrees"),
        ((True, False), "partly"),
        ((False, True, True), "partly"),
        ((False, False), "disagrees"),
    ],
)
def test_the_verdict_follows_from_the_conditions(holds, verdict):
    assert section(*holds).verdict == verdict
