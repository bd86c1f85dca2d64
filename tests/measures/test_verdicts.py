"""Verdicts from intervals."""

import math

import pytest

from lens_interventions.measures.intervals import Interval
from lens_interventions.measures.verdicts import verdict


def interval(low, high):
    return Interval((low + high) / 2, low, high, 0.95, "BCa", 64)


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.02, 0.30, "helps"),
        (-0.30, -0.02, "hurts"),
        (-0.04, 0.04, "no effect"),
        (0.01, 0.04, "no effect"),  # not zero, and not worth talking about
        (-0.02, 0.30, "undecided"),
        (-0.05, 0.04, "undecided"),  # reaches the margin
        (math.nan, math.nan, "undecided"),
    ],
)
def test_verdicts(low, high, outcome):
    assert (
        verdict(interval(low, high), smallest_effect=0.05, lower_is_better=False).outcome == outcome
    )
    mirrored = verdict(interval(-high, -low), smallest_effect=0.05, lower_is_better=True)
    assert mirrored.outcome == outcome


def test_verdicts_read_as_sentences():
    null = verdict(interval(-0.04, 0.04), smallest_effect=0.05, lower_is_better=True, units="nats")
    assert str(null) == ("no effect larger than 0.05 nats: 0 [-0.04, 0.04] (95% BCa, n = 64), nats")
    helps = verdict(interval(0.1, 0.2), smallest_effect=0.05, lower_is_better=False)
    assert str(helps).startswith("helps: 0.15 [")
    with pytest.raises(ValueError, match="positive"):
        verdict(interval(0.0, 1.0), smallest_effect=0.0, lower_is_better=True)
