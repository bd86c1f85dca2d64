"""Verdicts from intervals: the rules, and that more data only sharpen them."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lens_interventions.experiments.design.simultaneous import MAX_T
from lens_interventions.measures.intervals import (
    Interval,
    mean_interval,
    mean_intervals,
    sign_flip_p_values,
)
from lens_interventions.measures.verdicts import (
    JOINT,
    joint_interval,
    joint_verdict,
    outermost,
    smallest_visible,
    verdict,
    visible_by_width,
)

MARGIN = 0.05
LITTLE = {"helps": "helps a little", "hurts": "hurts a little"}
SHARPER = {
    "undecided": {"undecided", "no effect", "helps", "hurts", *LITTLE.values()},
    # As small as before, and its side known.
    "no effect": {"no effect", *LITTLE.values()},
    "helps a little": {"helps a little", "helps"},
    "helps": {"helps", "helps a little"},
    "hurts a little": {"hurts a little", "hurts"},
    "hurts": {"hurts", "hurts a little"},
}


def interval(low, high, estimate=None):
    estimate = (low + high) / 2 if estimate is None else estimate
    return Interval(estimate, low, high, 0.95, "BCa", 64)


def outcome(low, high, p_value=None, *, margin=MARGIN):
    judged = verdict(
        interval(low, high), smallest_effect=margin, lower_is_better=False, p_value=p_value
    )
    return judged.outcome


@pytest.mark.parametrize(
    ("low", "high", "p_value", "expected"),
    [
        (0.02, 0.30, None, "helps"),
        (0.01, 0.04, None, "helps a little"),
        (0.01, 0.07, None, "helps a little"),  # reaches the margin, its estimate does not
        (0.01, 0.04, 0.05, "helps a little"),
        (0.01, 0.04, 0.06, "no effect"),  # inside the margin, and its side is not known
        (0.02, 0.30, 0.06, "undecided"),
        (-0.30, -0.02, None, "hurts"),
        (-0.04, -0.01, None, "hurts a little"),
        (-0.04, 0.04, None, "no effect"),
        (-0.02, 0.30, None, "undecided"),
        (-0.05, 0.04, None, "undecided"),  # reaches the margin
        (math.nan, math.nan, None, "undecided"),
        (math.nan, math.nan, 1.0, "undecided"),
    ],
)
def test_the_rules(low, high, p_value, expected):
    assert outcome(low, high, p_value) == expected
    mirrored = verdict(
        interval(-high, -low), smallest_effect=MARGIN, lower_is_better=True, p_value=p_value
    )
    assert mirrored.outcome == expected


def test_an_estimate_of_just_the_margin_is_as_large_as_counts():
    # Sixteenths, which are exact.
    assert outcome(1 / 16, 3 / 16, margin=1 / 8) == "helps"
    assert outcome(-3 / 16, -1 / 16, margin=1 / 8) == "hurts"


def test_a_small_effect_that_is_certain_is_not_called_none():
    # Loss on copyable tokens, margin 0.02: "helps", and "no effect" with four times the data.
    for low, high in ((-0.0242, -0.0062), (-0.0190, -0.0100)):
        judged = verdict(
            interval(low, high, -0.0145), smallest_effect=0.02, lower_is_better=True, p_value=0.01
        )
        assert judged.outcome == "helps a little"


ENDS = st.floats(-1, 1)
# An interval within another one, which has a width, as one without rules nothing out.
NESTED = st.tuples(ENDS, ENDS, ENDS, ENDS).map(sorted).filter(lambda ends: ends[1] < ends[2])


@settings(deadline=None)
@given(NESTED, st.floats(0.01, 0.5))
def test_an_interval_that_shrinks_only_sharpens_its_verdict(ends, margin):
    low, inner_low, inner_high, high = ends
    assert (
        outcome(inner_low, inner_high, margin=margin) in SHARPER[outcome(low, high, margin=margin)]
    )


@settings(max_examples=12, deadline=None)
@given(st.floats(-1, 1), st.floats(0.05, 0.5))
def test_more_data_only_sharpen_a_verdict(effect, margin):
    found = []
    for n in (12, 48, 192):
        # A sample of each size that is as spread as the population, so nothing is left to luck.
        values = effect + stats.norm.ppf((np.arange(n) + 0.5) / n)
        rng = np.random.default_rng(0)
        judged = verdict(
            mean_interval(values, rng=rng, n_resamples=99),
            smallest_effect=margin,
            lower_is_better=False,
            p_value=float(sign_flip_p_values(values[None], rng=rng, n_resamples=99)[0]),
        )
        found.append(judged.outcome)
    for before, after in itertools.pairwise(found):
        assert after in SHARPER[before]


def judged_jointly(contrasts, **options):
    """The verdict on intervals (low, high) of a gain, no patch first, each certain."""
    intervals = [interval(*ends) for ends in contrasts]
    return joint_verdict(
        joint_interval(intervals, intervals, lower_is_better=False),
        intervals[0],
        smallest_effect=MARGIN,
        lower_is_better=False,
        **{"p_joint": 0.001, "p_unpatched": 0.001, "not_ahead_of": ("current token",), **options},
    )


@pytest.mark.parametrize(
    ("contrasts", "expected", "against"),
    [
        ([(0.1, 0.3), (0.2, 0.4)], "helps", JOINT),
        ([(0.1, 0.3), (0.01, 0.03)], "helps a little", JOINT),
        # Better than no patch, and as good as a control.
        ([(0.1, 0.3), (-0.03, 0.03)], "no effect", JOINT),
        ([(0.1, 0.3), (-0.03, 0.06)], "undecided", JOINT),
        ([(0.1, 0.3), (-0.03, 0.05)], "undecided", JOINT),  # reaches the margin
        # A control does better; that is no harm.
        ([(0.1, 0.3), (-0.4, -0.2)], "no effect", JOINT),
        ([(-0.01, 0.01), (-0.4, -0.2)], "no effect", JOINT),
        ([(-0.3, -0.1), (0.2, 0.4)], "hurts", "no patch"),
        ([(-0.03, -0.01), (0.2, 0.4)], "hurts a little", "no patch"),
        ([(-0.06, 0.01), (-0.4, -0.2)], "undecided", JOINT),
    ],
)
def test_help_is_a_lead_over_all_and_harm_is_against_no_patch(contrasts, expected, against):
    found = judged_jointly(contrasts)
    assert (found.outcome, found.against) == (expected, against)
    says_so = contrasts[0][0] > 0 and not expected.startswith("helps")
    assert ("ahead of no patch, but not of: current token" in found.words) == says_so


def test_the_corrected_p_values_decide():
    contrasts = [(0.1, 0.3), (0.2, 0.4)]
    assert judged_jointly(contrasts, p_joint=0.06).outcome == "undecided"
    worse = [(-0.3, -0.1), (0.2, 0.4)]
    assert judged_jointly(worse, p_joint=1.0).outcome == "hurts"
    assert judged_jointly(worse, p_unpatched=0.06).outcome == "undecided"


@settings(deadline=None)
@given(st.lists(NESTED, min_size=1, max_size=4))
def test_joint_verdicts_only_sharpen_too(contrasts):
    before = judged_jointly([(low, high) for low, _, _, high in contrasts]).outcome
    after = judged_jointly([(low, high) for _, low, high, _ in contrasts]).outcome
    assert after in SHARPER[before]


def test_a_joint_interval_is_that_of_the_smallest_gain():
    contrasts = [interval(-0.5, -0.1), interval(-0.4, -0.3), interval(-0.9, 0.2)]
    wider = [interval(-0.6, 0.0), interval(-0.45, -0.25), interval(-1.0, 0.3)]
    # A loss: the gains are 0.1 to 0.5, 0.3 to 0.4 and -0.2 to 0.9.
    found = joint_interval(contrasts, wider, lower_is_better=True)
    assert (found.low, found.high) == (-0.45, 0.2)
    assert found.estimate == pytest.approx(-0.3)
    assert found.method == "joint BCa"
    nothing = Interval(0.0, math.nan, math.nan, 0.95, "none", 1)
    none = joint_interval([*contrasts, nothing], [*wider, nothing], lower_is_better=True)
    assert (none.method, none.n) == ("none", 1)
    assert math.isnan(none.low)
    assert math.isnan(none.high)


@pytest.mark.parametrize(("intervals", "wider"), [(0, 0), (2, 1)])
def test_a_joint_interval_needs_a_wider_one_for_each_reference(intervals, wider):
    with pytest.raises(ValueError, match=f"got {intervals} intervals and {wider} wider ones"):
        joint_interval(
            [interval(0.1, 0.2)] * intervals, [interval(0.0, 0.3)] * wider, lower_is_better=True
        )


def test_a_joint_interval_covers_the_lead_over_the_best_of_equals():
    rng = np.random.default_rng(0)
    z, wide = stats.norm.isf(0.025), stats.norm.isf(0.025 / 6)
    covered = 0
    for _ in range(400):
        means = rng.standard_normal(6)
        found = joint_interval(
            [interval(mean - z, mean + z) for mean in means],
            [interval(mean - wide, mean + wide) for mean in means],
            lower_is_better=False,
        )
        covered += found.low < 0 < found.high
    # The upper ends of the plain intervals alone would cover 86%.
    assert covered >= 0.95 * 400


@pytest.mark.parametrize("n", [2, 3, 5, 10, 20])
def test_few_sequences_rarely_rule_out_an_effect_that_is_there(n):
    """2.5% are promised. A bootstrap alone says so in 24% with 2, and in 5% with 10."""
    rng = np.random.default_rng(n)
    values = rng.normal(MARGIN, MARGIN, (4000, n))
    found = [
        verdict(each, smallest_effect=MARGIN, lower_is_better=False, p_value=1.0).outcome
        for each in mean_intervals(values, rng=rng, n_resamples=999)
    ]
    # Two and a half standard errors of the share of 4,000, and what 999 resamples add.
    assert found.count("no effect") / len(found) < 0.035


def test_where_nothing_varied_nothing_is_ruled_out():
    none = Interval(0.0, 0.0, 0.0, 0.95, "joint crossed t", 2)
    judged = verdict(none, smallest_effect=MARGIN, lower_is_better=False)
    assert judged.outcome == "undecided"
    same = {"smallest_effect": MARGIN, "lower_is_better": True, "p_joint": 1.0, "p_unpatched": 1.0}
    judged = joint_verdict(none, none, **same)
    assert judged.words == f"undecided: cannot tell no effect from one of {MARGIN} or more"
    wide = interval(-0.01, 0.01)
    assert joint_verdict(wide, none, **same).outcome == "undecided"
    assert joint_verdict(wide, wide, **same).outcome == "no effect"


def test_intervals_that_know_their_number_are_taken_as_they_are():
    """Only a bootstrap is widened, and never narrowed where it leaves out its estimate."""
    few = Interval(0.0, -0.049, 0.049, 0.95, "crossed t", 3)
    assert outermost(few) == (-0.049, 0.049)
    low, high = outermost(replace(few, method="BCa", n=10))
    factor = stats.t.ppf(0.975, 9) / stats.norm.ppf(0.975) * math.sqrt(10 / 9)
    assert (-low, high) == pytest.approx((0.049 * factor, 0.049 * factor))
    low, high = outermost(Interval(-0.02, -0.01, 0.04, 0.95, "joint BCa", 10))
    assert low == -0.01
    assert high > 0.04
    assert outermost(replace(few, method=MAX_T, n=8)) == (-0.049, 0.049)


def test_power_is_the_shift_that_a_test_sees_four_times_in_five():
    effect = smallest_visible(0.1)
    assert effect == pytest.approx(0.28, abs=0.001)
    seen = stats.norm.sf(stats.norm.isf(0.025), loc=effect / 0.1)
    assert seen == pytest.approx(0.8, abs=1e-4)
    assert visible_by_width(interval(-0.196, 0.196)) == pytest.approx(effect, abs=1e-4)
    assert visible_by_width(interval(math.nan, math.nan)) is None
    assert visible_by_width(interval(0.0, 0.0)) is None


def test_verdicts_read_as_sentences():
    null = verdict(interval(-0.04, 0.04), smallest_effect=0.05, lower_is_better=True, units="nats")
    assert str(null) == (
        "no effect larger than 0.05 nats: 0 [-0.04, 0.04] (95% BCa, n = 64), nats; below 0 helps"
    )
    helps = verdict(interval(0.1, 0.2), smallest_effect=0.05, lower_is_better=False)
    assert str(helps) == "helps: 0.15 [0.1, 0.2] (95% BCa, n = 64); above 0 helps"
    wide = verdict(
        interval(-0.1, 0.2),
        smallest_effect=0.05,
        lower_is_better=False,
        units="nats",
        smallest_visible=0.2143,
    )
    assert wide.words == (
        "undecided: cannot tell no effect from one of 0.05 nats or more (a single test had 80% "
        "power for 0.21 nats)"
    )
    unsure = verdict(interval(0.1, 0.2), smallest_effect=0.05, lower_is_better=False, p_value=0.078)
    assert unsure.words == "undecided: p = 0.078"
    as_good = judged_jointly([(0.1, 0.3), (-0.03, 0.03)])
    assert as_good.words == (
        "no effect (no lead of 0.05 or more, and no such harm); ahead of no patch, but not of: "
        "current token"
    )
    assert judged_jointly([(-0.06, 0.01), (-0.4, -0.2)]).words == (
        "undecided: no lead of 0.05 or more, but such harm is not ruled out"
    )
    assert judged_jointly([(-0.06, 0.01), (-0.4, 0.04)]).words == (
        "undecided: no lead of 0.05 or more, but such harm is not ruled out"
    )
    assert str(judged_jointly([(0.1, 0.3)])).endswith(
        "against no patch and every control; above 0 helps"
    )
    for judge in (verdict, joint_verdict):
        options = {"lower_is_better": True, "smallest_effect": 0.0}
        intervals = [interval(0.0, 1.0)]
        if judge is joint_verdict:
            intervals, options = intervals * 2, options | {"p_joint": 1.0, "p_unpatched": 1.0}
        with pytest.raises(ValueError, match="positive"):
            judge(*intervals, **options)


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95, 0.99])
def test_a_p_value_that_equals_one_minus_the_level_is_enough(level):
    """1 - 0.9 is a little less than 0.1 in floating point."""
    interval = Interval(0.06, 0.01, 0.11, level, "bootstrap", 5)
    for p_value, outcome in ((round(1 - level, 2), "helps"), (1.001 - level, "undecided")):
        found = verdict(interval, smallest_effect=MARGIN, lower_is_better=False, p_value=p_value)
        assert found.outcome == outcome


def test_a_p_value_is_named_only_if_it_is_too_large():
    """A source behind a control may have an interval on one side, of few texts, and a small p."""
    behind, around = Interval(-1.0, -2.0, -0.01, 0.95, "joint BCa", 4), interval(-0.3, 0.3)
    judged = joint_verdict(
        behind, around, smallest_effect=MARGIN, lower_is_better=False, p_joint=0.03, p_unpatched=1.0
    )
    assert judged.outcome == "undecided"
    assert "p = " not in judged.words


@pytest.mark.parametrize(("low", "high"), [(-0.05, 0.01), (-0.01, 0.05)])
def test_no_effect_lies_strictly_between_the_margins(low, high):
    on_it = Interval(0.0, low, high, 0.95, "crossed t", 64)
    options = {"smallest_effect": 0.05, "lower_is_better": False}
    assert verdict(on_it, **options).outcome == "undecided"
    joint = joint_verdict(on_it, on_it, **options, p_joint=0.5, p_unpatched=0.5)
    assert joint.outcome == "undecided"
