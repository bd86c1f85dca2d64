"""A finding as a card: its number in words, and its interval drawn to scale."""

import pytest

from lens_interventions.experiments import Finding
from lens_interventions.measures.verdicts import joint_verdict, verdict
from lens_interventions.pages.verdict_card import verdict_card
from tests.support.made_up_runs import INTERVALS, NOTHING


def card_of(interval, *, lower_is_better=True):
    judged = verdict(interval, smallest_effect=0.1, lower_is_better=lower_is_better, units="nats")
    return verdict_card(Finding("Is it so?", judged, "how it was found", "curve"))


@pytest.mark.parametrize("outcome", INTERVALS)
def test_a_card_says_the_outcome_and_the_number(outcome):
    card = card_of(INTERVALS[outcome])
    assert card.outcome == outcome
    assert card.words.startswith(outcome)
    assert f"n = {INTERVALS[outcome].n})" in card.number


def test_a_strip_is_drawn_to_scale():
    strip = card_of(INTERVALS["helps"]).strip
    per_nat = (strip.band[1] - strip.band[0]) / 0.2  # the band is 0.1 nats to either side
    assert strip.zero == pytest.approx(200)
    for name, value in (("low", -0.42), ("estimate", -0.30), ("high", -0.18)):
        assert getattr(strip, name) == pytest.approx(strip.zero + value * per_nat)
    assert 8 < strip.low < strip.high < 392
    assert strip.label == "−0.3, interval −0.42 to −0.18; no effect is within 0.1 of zero"


@pytest.mark.parametrize(("lower_is_better", "side"), [(True, "left"), (False, "right")])
def test_a_strip_says_which_side_is_better(lower_is_better, side):
    strip = card_of(INTERVALS["undecided"], lower_is_better=lower_is_better).strip
    assert strip.better == side


def test_a_verdict_without_an_interval_has_no_strip():
    card = card_of(NOTHING)
    assert card.strip is None
    assert card.number == "+0.5 nats (no interval, n = 1)"


def test_a_card_says_what_the_number_is_a_difference_from():
    judged = joint_verdict(
        INTERVALS["no effect"],
        INTERVALS["helps"],
        smallest_effect=0.1,
        lower_is_better=True,
        p_joint=0.5,
        p_unpatched=0.01,
        not_ahead_of=["current token"],
    )
    card = verdict_card(Finding("Is it so?", judged, "how it was found", "curve"))
    assert "against no patch and every control (95%" in card.number
    assert card.words.endswith("ahead of no patch, but not of: current token")
