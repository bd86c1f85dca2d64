"""How long texts go on before they fall into a loop."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_interventions.measures import behaviour
from lens_interventions.measures.behaviour import Loop
from tests.support import reference_measures as naive


def test_survival_by_hand():
    # Four texts of 20 tokens, watched until 20 - 10: loops from 2 and 5, one censored early at 4.
    loops = [Loop(2, 20, 1), Loop(5, 20, 1), None, None]
    curve = behaviour.loop_free_survival(loops, [20, 20, 14, 20], min_length=10)
    assert curve.time.tolist() == list(range(11))
    assert curve.share[1] == 1
    assert curve.share[2] == curve.share[4] == pytest.approx(3 / 4)
    assert curve.share[5] == curve.share[10] == pytest.approx(3 / 4 * 1 / 2)
    assert repr(curve).startswith("Survival(time=[11], share=[11], ")
    assert curve.at_risk.tolist() == [4, 4, 4, 3, 3, 2, 1, 1, 1, 1, 1]
    inside = slice(2, None)
    assert math.isnan(curve.low[1])
    assert (curve.low[inside] < curve.share[inside]).all()
    assert (curve.share[inside] < curve.high[inside]).all()


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_survival_equals_the_product_formula(samples):
    times, looped = zip(*samples, strict=True)
    lengths = [time + 4 for time in times]
    loops = [
        Loop(time, time + 4, 1) if event else None
        for time, event in zip(times, looped, strict=True)
    ]
    curve = behaviour.loop_free_survival(loops, lengths, min_length=4)
    assert curve.share == pytest.approx(naive.kaplan_meier(times, looped), abs=1e-12)


def test_survival_of_texts_too_short_to_loop_or_none():
    curve = behaviour.loop_free_survival([None, None], [3, 0])
    assert curve.share.tolist() == [1]
    with pytest.raises(ValueError, match="at least one text"):
        behaviour.loop_free_survival([], [])
    with pytest.raises(ValueError, match="min_length that the loops were found with"):
        behaviour.loop_free_survival([Loop(10, 20, 1)], [20])


def test_the_level_of_the_interval():
    loops = [Loop(2, 20, 1), Loop(5, 20, 1), Loop(9, 20, 1), None, None]
    narrow, wide = (
        behaviour.loop_free_survival(loops, [20] * 5, min_length=10, level=level)
        for level in (0.5, 0.95)
    )
    inside = slice(2, None)
    assert (narrow.share == wide.share).all()
    assert (narrow.low[inside] > wide.low[inside]).all()
    assert (narrow.high[inside] < wide.high[inside]).all()
