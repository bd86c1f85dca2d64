"""Questions of one experiment that are judged together."""

import numpy as np

from lens_interventions.experiments.design.contrasts import Contrast, Resampling, mean_contrast
from lens_interventions.experiments.design.findings import Asked, judged, resampled
from lens_interventions.measures.intervals import Interval


def asked(p_value: float) -> Asked:
    interval = Interval(0.2, 0.01, 0.39, 0.95, "BCa", 20)
    return Asked("Does it help?", Contrast(interval, p_value), "Measured. ", "figure", 0.1)


def test_holm_s_correction_enters_the_verdict() -> None:
    (alone,) = judged([asked(0.03)])
    assert alone.verdict.outcome == "helps"
    first, second = judged([asked(0.03), asked(0.02)])
    # 2 * 0.02 is 0.04, and 1 * 0.03 is raised to it.
    assert [first.verdict.p_value, second.verdict.p_value] == [0.04, 0.04]
    first, second = judged([asked(0.03), asked(0.026)])
    assert [first.verdict.outcome, second.verdict.outcome] == ["undecided", "undecided"]
    assert first.verdict.words.startswith("undecided: p = 0.052")
    assert first.method == "Measured. p = 0.052, corrected by Holm's method over 2 questions."


def test_a_single_seed_is_said_to_know_nothing_of_others() -> None:
    assert resampled("Texts", 3).startswith("Texts and seeds are resampled;")
    assert resampled("Texts", 1) == (
        "Texts are resampled; how another seed would have turned out is not known."
    )


def test_a_mean_is_compared_with_zero() -> None:
    totals, counts = np.array([1.0, 2, 3, 4, 5, 6]), np.array([1.0, 1, 2, 2, 1, 1])
    found = mean_contrast(totals, Resampling(n_resamples=999), counts)
    assert found.interval.estimate == 21 / 8
    # All six signs agree: of 64 flips, only two have a sum as far from 0.
    assert found.p_value == 2 / 64
