"""The true source against all references: what is joined, and what corrects what."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lens_interventions.experiments.design.comparisons import (
    Comparison,
    against,
    compare,
    question_rows,
    said_of,
    verdicts_on,
    visible_beforehand,
    with_holm_over_questions,
    with_visible_by_width,
)
from lens_interventions.experiments.design.conditions import NO_PATCH, Arm
from lens_interventions.experiments.design.contrasts import Contrast, Resampling
from lens_interventions.experiments.design.totals import Totals
from lens_interventions.measures.intervals import Interval
from lens_interventions.measures.verdicts import JOINT, smallest_visible, visible_by_width

TRUE, RANDOM, CURRENT = (Arm(source, 1, 0.1, "add") for source in ("true", "random", "current"))
REFERENCES = [NO_PATCH, RANDOM, CURRENT]
RESAMPLING = Resampling(n_resamples=999)


def losses(*, n: int = 40, **means: float) -> Totals:
    """Losses of `n` texts of ten tokens: of no patch 2, of the others as given, with noise."""
    rng = np.random.default_rng(0)
    arms = (NO_PATCH, TRUE, RANDOM, CURRENT)
    noise = 0.2 * rng.standard_normal((4, n))
    common = rng.standard_normal(n)
    values = [
        10 * (means.get(arm.source, 2.0) + common + e) for arm, e in zip(arms, noise, strict=True)
    ]
    return Totals(arms, np.stack(values)[..., None], np.full((n, 1), 10.0))


def compared(totals: Totals) -> Comparison:
    return compare(against(totals, TRUE), REFERENCES, RESAMPLING, lower_is_better=True)


def test_a_lead_is_that_over_the_best_reference() -> None:
    totals = losses(true=1.0, random=1.9, current=1.3)
    found = compared(totals)
    assert list(found.contrasts) == REFERENCES
    closest = found.contrasts[CURRENT]
    assert found.joint.estimate == closest.interval.estimate
    assert found.joint.high == max(c.interval.high for c in found.contrasts.values())
    # The far end is Bonferroni's over three references, so it is further out.
    wide = against(totals, TRUE)(REFERENCES, replace(RESAMPLING, level=1 - 0.05 / 3))
    assert found.joint.low == max(c.interval.low for c in wide) < closest.interval.low
    assert found.p_value == max(c.p_value for c in found.contrasts.values())
    assert found.not_ahead_of == ()
    assert [row["minus"] for row in found.rows()] == [JOINT, "none", "random", "current"]


def test_a_control_that_is_as_good_is_named() -> None:
    found = compared(losses(true=1.0, random=1.9, current=1.0))
    assert found.not_ahead_of == ("current token",)
    (judged,) = verdicts_on([found], [(0.2, "nats")])
    assert judged.outcome == "no effect"
    assert judged.not_ahead_of == ("current token",)
    assert "each of these: no patch, -0.928 [" in said_of(found, "nats")


def test_the_truth_hurts_only_against_no_patch() -> None:
    beaten, harmful = compared(losses(current=1.0)), compared(losses(true=2.5, random=3.0))
    judged = verdicts_on([beaten, harmful], [(0.2, "nats")] * 2)
    assert [verdict.outcome for verdict in judged] == ["no effect", "hurts"]
    assert judged[1].interval == harmful.unpatched.interval


def test_questions_are_corrected_together() -> None:
    # Seven texts: the smallest p-value is 1/64, which twenty questions make 0.31.
    alone = compared(losses(n=7, true=0.0))
    assert alone.p_value == pytest.approx(2 / 2**7)
    assert verdicts_on([alone], [(0.2, "nats")])[0].outcome == "helps"
    many = verdicts_on([alone] * 20, [(0.2, "nats")] * 20)
    assert {verdict.outcome for verdict in many} == {"undecided"}
    assert many[0].p_value == pytest.approx(20 / 64)


def test_harm_is_corrected_over_questions_too() -> None:
    harmful = compared(losses(n=7, true=4.0))
    assert verdicts_on([harmful], [(0.2, "nats")])[0].outcome == "hurts"
    many = verdicts_on([harmful] * 20, [(0.2, "nats")] * 20)
    assert {verdict.outcome for verdict in many} == {"undecided"}


def test_joint_rows_are_corrected_over_questions_and_measures_apart() -> None:
    rows = pd.DataFrame(
        [
            ("a", "loss", JOINT, 0.01, 1.0),
            ("a", "loss", "none", 0.001, 0.002),
            ("b", "loss", JOINT, 0.04, 1.0),
            ("b", "top1", JOINT, 0.03, 1.0),
        ],
        columns=["question", "measure", "minus", "p_value", "p_holm"],
    )
    assert with_holm_over_questions(rows)["p_holm"].tolist() == [0.02, 0.002, 0.04, 0.03]


def test_the_other_half_says_what_can_be_seen() -> None:
    selection = losses(n=4000)
    # Differences vary by 0.2 times the root of 2 from text to text.
    expected = 2.8016 * 0.2 * 2**0.5 / 10
    found = visible_beforehand(selection, TRUE, REFERENCES, 100, 0.95)
    assert found == pytest.approx(expected, rel=0.05)
    # With few texts, and by the reference from which the difference varies most.
    few = losses(n=6)
    spread = max((few.of(TRUE) - few.of(reference)).std(ddof=1) / 10 for reference in REFERENCES)
    found = visible_beforehand(few, TRUE, REFERENCES, 100, 0.95)
    assert found == pytest.approx(2.8016 * spread / 10, rel=1e-3)
    assert visible_beforehand(losses(n=1), TRUE, REFERENCES, 100, 0.95) is None
    same = Totals((NO_PATCH, TRUE), np.ones((2, 5, 1)), np.ones((5, 1)))
    assert visible_beforehand(same, TRUE, [NO_PATCH], 100, 0.95) is None


def test_the_widest_interval_says_what_could_be_seen() -> None:
    found = compared(losses(true=1.0, random=1.9, current=1.3))
    assert found.smallest_visible is None
    widths = [visible_by_width(each.interval) for each in found.contrasts.values()]
    assert with_visible_by_width(found).smallest_visible == max(widths)
    alone = compared(losses(n=1, true=1.0))
    assert with_visible_by_width(alone).smallest_visible is None


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_what_was_visible_weighs_texts_by_their_tokens(noise: float) -> None:
    counts = np.array([1.0, 5, 10, 40, 100])
    lead = (3 + noise * np.random.default_rng(0).standard_normal(5)) * counts
    totals = Totals((NO_PATCH, TRUE), np.stack([np.zeros(5), lead])[..., None], counts[:, None])
    around = lead - lead.sum() / counts.sum() * counts
    error = np.sqrt((around**2).sum() / 4 / 5) / counts.mean()
    found = visible_beforehand(totals, TRUE, [NO_PATCH], 5, 0.95) or 0.0
    assert found == pytest.approx(smallest_visible(error), abs=1e-9)


def test_to_be_ahead_takes_an_interval_and_a_p_value() -> None:
    clear = Interval(-0.1, -0.2, -0.01, 0.95, "BCa", 10)
    contrasts = {NO_PATCH: Contrast(clear, 0.01), RANDOM: Contrast(clear, 0.2)}
    assert len(Comparison(contrasts, clear, True, None).not_ahead_of) == 1


def test_a_joint_row_waits_for_its_correction_and_counts_in_no_other():
    interval = Interval(-0.2, -0.3, -0.1, 0.95, "BCa", 40)
    random = Arm("random", 1, 0.1, "add")
    of = {NO_PATCH: Contrast(interval, 0.01), random: Contrast(interval, 0.04)}
    rows = question_rows(Comparison(of, interval, True, None), [{"p_value": 0.02}])
    assert [row["p_holm"] for row in rows] == pytest.approx([1.0, 0.03, 0.04, 0.04])
