"""The upbringing experiment: runs, its tables and verdicts."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import lens_interventions as li
from lens_interventions.experiments.design.small_networks.training import TrainingRun
from lens_interventions.experiments.upbringing.analysis import analyse
from lens_interventions.experiments.upbringing.arms import ARMS
from lens_interventions.experiments.upbringing.evaluation import (
    KL,
    LOSS,
    RECOVERED,
    RIGHT,
    WEIGHTS,
)
from tests.support.small_upbringing import SMALL
from tests.support.stopped import assert_same_tables, counted, stopped


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "upbringing"
    return li.experiments.upbringing(settings=SMALL, out=out), out


def test_a_run_gives_tables_verdicts_and_figures(finished):
    result, out = finished
    assert set(result.tables) == {
        "contrasts", "layers", "curves", "recall", "weights", "rows"
    }  # fmt: skip
    assert len(result.verdicts) == 10
    assert {finding.figure for finding in result.verdicts} == {"kl", "curves", "recovered"}
    assert set(result.figures()) == {"kl", "layers", "curves", "recovered"}
    curve = result.tables["curves"].query("arm == 'plain' and measure == 'loss' and scope == 'all'")
    assert curve["step"].tolist() == [0, 3, 6]
    # Networks that were not trained guess.
    assert curve["mean"].iloc[0] == pytest.approx(np.log(300), abs=0.1)
    at_output = result.tables["layers"].query("measure == 'kl' and point == 'final_post'")
    np.testing.assert_allclose(at_output["mean"], 0.0, atol=1e-6)
    page = li.report(out, out=out.parent / "report.html").read_text()
    assert "to train every layer on the next token" in page


def test_decay_acts_in_the_arms_that_have_it(finished):
    sizes = finished[0].tables["weights"].groupby("arm")["size"].mean()
    assert sizes["strong decay"] < sizes["plain"] < sizes["no decay"]


def test_the_size_of_the_weights_is_of_the_matrices_of_the_blocks(finished):
    """Those that decay: queries, keys and values, their output, and two of the MLP."""
    rows = li.experiments.read_tables(finished[1])["training"]
    counts = rows[rows["measure"] == WEIGHTS]["count"]
    assert set(counts) == {SMALL.blocks * (3 + 1 + 4 + 4) * SMALL.width**2}


def test_a_stopped_run_ends_in_the_same_numbers(finished, tmp_path):
    result, _ = finished
    with stopped(TrainingRun, "_make_step", call=10):
        li.experiments.upbringing(settings=SMALL, out=tmp_path / "run")
    assert len(list((tmp_path / "run" / "files" / "training").iterdir())) == 2
    with counted(TrainingRun, "_make_step") as steps:
        resumed = li.experiments.upbringing(settings=SMALL, out=tmp_path / "run")
    assert len(steps) == 12 * 6 - 9  # The second training goes on from its third step.
    assert_same_tables(resumed, result)


# What each arm has more than the plain one at the end, of every measure.
PLANTED = {"strong decay": -0.3, "untied": 0.2, "myopic": 0.001, "myopic, stopped": 0.4}


def planted() -> pd.DataFrame:
    """Rows of every measure, with differences between arms that all rows agree on."""
    points = ("0_pre", "1_pre", "final_post")
    kinds = [
        *itertools.product((LOSS, KL, RIGHT), ("all", "copyable", "other")),
        (RECOVERED, "all"),
    ]
    found = []
    for arm, seed, step in itertools.product(ARMS, SMALL.seeds, (0, 3, 6)):
        more = PLANTED.get(arm, 0.0) * (step / 6)
        for (measure, scope), point, row in itertools.product(kinds, points, range(12)):
            total = 10 * (1.0 + 0.1 * row + 0.01 * seed + 0.1 * points.index(point) + more)
            found.append((arm, seed, step, measure, scope, point, row, row // 2, total, 10))
        found.append((arm, seed, step, WEIGHTS, "", "", 0, 0, 4.0, 100))
    columns = ["arm", "seed", "step", "measure", "scope", "point", "row", "cluster"]
    return pd.DataFrame(found, columns=[*columns, "total", "count"])


def test_planted_differences_are_found():
    analysis = analyse(SMALL, {"training": planted()})
    assert [finding.verdict.outcome for finding in analysis.verdicts] == [
        "helps",  # KL, strong decay minus none
        "helps",  # KL, plain minus untied
        "hurts a little",  # myopia, all tokens and copyable ones
        "hurts a little",
        "hurts",  # the same where gradients stop
        "hurts",
        "helps a little",  # the input under myopia, in the middle and at the output
        "helps a little",
        "helps",
        "helps",
    ]
    estimates = [finding.verdict.interval.estimate for finding in analysis.verdicts]
    expected = [-0.3, -0.2, 0.001, 0.001, 0.4, 0.4, 0.001, 0.001, 0.4, 0.4]
    np.testing.assert_allclose(estimates, expected, atol=1e-9)
    recall = analysis.tables["recall"]
    np.testing.assert_allclose(recall["estimate"], 0.1, atol=1e-9)
    np.testing.assert_allclose(analysis.tables["weights"]["size"], 0.2, atol=1e-12)


def test_curves_are_of_the_same_windows_at_every_step():
    curves = analyse(SMALL, {"training": planted()}).tables["curves"]
    loss = curves.query("arm == 'plain' and measure == 'loss' and scope == 'all'")
    # The mean of rows 0 to 5 of 12 and of seeds 0 and 1, at the last of three points.
    np.testing.assert_allclose(loss["mean"], 1.0 + 0.1 * 2.5 + 0.01 * 0.5 + 0.1 * 2, rtol=1e-12)


def test_the_interval_widens_with_what_seeds_disagree_about():
    alike = planted()
    sign = np.where(alike["seed"] == SMALL.seeds[0], 1, -1) * (alike["arm"] == "myopic")
    apart = alike.assign(total=alike["total"] + sign)
    narrow, wide = (
        analyse(SMALL, {"training": rows}).verdicts[2].verdict.interval for rows in (alike, apart)
    )
    assert narrow.estimate == pytest.approx(wide.estimate) == pytest.approx(0.001)
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": 3}, "even number from 2 on, got 3"),
        ({"windows": (5, 4)}, "no fewer at the end"),
        ({"steps": 0}, "at least 1"),
        ({"seeds": ()}, "must be a seed"),
        ({"heads": 3}, "heads must divide width"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)
