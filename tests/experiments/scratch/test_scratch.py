"""The scratch experiment: runs, its tables and verdicts, and what it leaves to use."""

import itertools
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import lens_interventions as li
from lens_interventions.experiments.design.small_networks import training as training_module
from lens_interventions.experiments.design.small_networks.corpus import corpus_of
from lens_interventions.experiments.design.text_scopes import SECOND
from lens_interventions.experiments.scratch.analysis import analyse, best_heads, efficiency
from lens_interventions.experiments.scratch.arms import ScratchTraining
from lens_interventions.experiments.scratch.contrasts import difference, with_in_context
from lens_interventions.experiments.scratch.decoding import LOOPED
from lens_interventions.experiments.scratch.evaluation import (
    PREFIX_MATCHING,
    SAME_TOKEN,
)
from lens_interventions.experiments.scratch.stages import COST
from tests.support.small_scratch import SMALL
from tests.support.stopped import assert_same_tables, counted, stopped


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "scratch"
    return li.experiments.scratch(settings=SMALL, out=out), out


@pytest.fixture(scope="module")
def knockouts(finished):
    return li.experiments.read_tables(finished[1])["knockouts"]


def test_a_run_gives_tables_verdicts_and_figures(finished):
    result, out = finished
    assert set(result.tables) == {
        "contrasts", "gains", "curves", "heads", "efficiency", "cost", "rows", "knockouts",
        "head_knockouts", "knockout_rows",
    }  # fmt: skip
    assert len(result.verdicts) == 3
    assert set(result.figures()) == {"gain", "curves", "heads", "knockouts", "decoding"}
    curve = result.tables["curves"].query("arm == 'true' and scope == 'all'")
    assert curve["step"].tolist() == [0, 3, 6]
    # Networks that were not trained guess.
    assert curve["loss"].iloc[0] == pytest.approx(np.log(300), abs=0.1)
    page = li.report(out, out=out.parent / "report.html").read_text()
    assert "grows up with the true token" in page


def test_a_reader_recomputes_a_difference_from_the_kept_rows(finished):
    """Means over tokens of one seed, then over the seeds, by pandas alone."""
    tables = finished[0].tables
    rows = tables["rows"].query("scope == 'all' and condition == 'as trained'")
    sums = rows.groupby(["arm", "seed"])[["total", "count"]].sum()
    loss = (sums["total"] / sums["count"]).groupby("arm").mean()
    contrast = tables["contrasts"].query(
        "scope == 'all' and arm == 'true' and minus == 'current' and condition == 'as trained'"
    )
    expected = loss["true"] - loss["current"]
    assert contrast["estimate"].item() == pytest.approx(expected, abs=1e-12)


def test_a_reader_recomputes_a_knockout_from_its_rows(finished, knockouts):
    """With the write in no values at all, and with it in no values of one head."""
    result, _ = finished
    kept = result.tables["knockout_rows"].query("arm == 'true' and scope == 'all'")
    by_seed = kept.groupby(["path", "seed"])[["total", "count"]].sum()
    losses = (by_seed["total"] / by_seed["count"]).groupby("path").mean()
    rows = knockouts.query("arm == 'true' and scope == 'all' and measured == 'loss'")
    sums = rows.groupby(["path", "head", "seed"])[["total", "count"]].sum()
    loss = sums["total"] / sums["count"]
    rise = loss["values"] - loss["as trained"].droplevel("head")
    whole = result.tables["knockouts"].query(
        "arm == 'true' and scope == 'all' and path == 'values'"
    )
    assert whole["estimate"].item() == pytest.approx(rise[-1].mean(), abs=1e-12)
    expected = losses["values"] - losses["as trained"]
    assert whole["estimate"].item() == pytest.approx(expected, abs=1e-12)
    single = result.tables["head_knockouts"].query(
        "arm == 'true' and scope == 'all' and path == 'values' and head == 1"
    )
    assert single["block"].eq(0).all()
    assert single.set_index("seed")["rise"].to_dict() == pytest.approx(rise[1].to_dict(), abs=1e-12)
    # Hardly anything is read after six steps, so the rise is as good as linear.
    assert single["first_order"].to_list() == pytest.approx(single["rise"].to_list(), rel=0.1)


def test_a_network_that_is_gone_is_named(finished, tmp_path):
    _, out = finished
    shutil.copytree(out, tmp_path / "run")
    gone = "blocks1-entry0-true-seed1"
    (tmp_path / "run" / "files" / "training" / f"{gone}.safetensors").unlink()
    (tmp_path / "run" / "rows" / "knockouts" / f"{gone}.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=f"remove .*rows/training/{gone}.parquet, to train"):
        li.experiments.scratch(settings=SMALL, out=tmp_path / "run")


def test_the_trained_networks_read_as_they_were_measured(finished):
    """A window's loss, by the library on the bridge, is that in the rows; float32."""
    _, out = finished
    models = li.experiments.trained_models(out)
    assert len(models) == 6
    rows = li.experiments.read_tables(out)["training"]
    window = corpus_of(SMALL.corpus).windows[:1]
    for arm in ("none", "true", "current"):
        model = models[ScratchTraining(1, 0, arm, 1)]
        nats = -li.teacher_forced_log_probs(model.bridge, window, model.patch)
        row = rows.query(
            "arm == @arm and seed == 1 and step == 6 and scope == 'all' and row == 0"
            " and condition == 'as trained'"
        )
        assert float(row["total"].iloc[0]) == pytest.approx(float(nats.sum()), abs=1e-3)


def test_networks_of_other_texts_are_not_read(finished, tmp_path):
    _, out = finished
    shutil.copytree(out, tmp_path / "run")
    header = tmp_path / "run" / "settings.json"
    header.write_text(header.read_text().replace('"prose"', '"python_code"'))
    with pytest.raises(li.experiments.RunDirectoryError, match="on other tokens than python_code"):
        # A session that checks types reads a network as soon as there are any.
        li.experiments.trained_models(tmp_path / "run")[ScratchTraining(1, 0, "true", 1)]


def test_a_stopped_run_ends_in_the_same_numbers(finished, tmp_path):
    result, _ = finished
    with stopped(training_module.TrainingRun, "_make_step", call=10):
        li.experiments.scratch(settings=SMALL, out=tmp_path / "run")
    assert len(list((tmp_path / "run" / "files" / "training").iterdir())) == 2
    with counted(training_module.TrainingRun, "_make_step") as steps:
        resumed = li.experiments.scratch(settings=SMALL, out=tmp_path / "run")
    assert len(steps) == 6 * 6 - 9  # The second training goes on from its third step.
    assert_same_tables(resumed, result)


_LOSSES = ("all", "copyable", "other", "repeats of surprises", "early", "late", SECOND)


def planted(gain: float) -> pd.DataFrame:
    """Rows in which the true arm costs `gain` nats less a token than the others, at the end."""
    found = []
    for arm, seed, step in itertools.product(SMALL.arms, SMALL.seeds, (0, 3, 6)):
        less = gain * (step / 6) * (arm == "true")
        conditions = ["as trained"]
        if step == 6 and arm != "none":
            conditions += ["taken away", "falsified"]
        for condition, scope, row in itertools.product(conditions, _LOSSES, range(12)):
            total = 10 * (5.0 - step / 6 + 0.1 * row + 0.01 * seed - less)
            found.append((arm, seed, step, condition, scope, row, row // 2, total, 10))
        found += [
            (arm, seed, step, "as trained", score, 0, 0, 0.2, 1)
            for score in (PREFIX_MATCHING, SAME_TOKEN)
        ]
        if step == 6:
            found.append((arm, seed, step, "", COST, 0, 0, 1e6, 1))
    columns = ["arm", "seed", "step", "condition", "scope", "row", "cluster", "total", "count"]
    return pd.DataFrame(found, columns=columns).assign(blocks=1, entry=0)


@pytest.mark.parametrize(
    ("gain", "outcome"), [(0.2, "helps"), (-0.2, "hurts"), (0.001, "helps a little")]
)
def test_a_planted_gain_is_found(gain, outcome, knockouts):
    analysis = analyse(SMALL, {"training": planted(gain), "knockouts": knockouts})
    assert [finding.verdict.outcome for finding in analysis.verdicts] == [outcome, outcome]
    contrasts = analysis.tables["contrasts"].query("scope == 'all' and arm == 'true'")
    trained = contrasts.query("condition == 'as trained'")
    np.testing.assert_allclose(trained["estimate"], -gain, atol=1e-9)
    halfway = analysis.tables["gains"].query("scope == 'copyable' and part == 0.5")
    np.testing.assert_allclose(halfway["estimate"], -gain / 2, atol=1e-9)


@pytest.mark.parametrize(("fewer", "outcome"), [(0.5, "helps"), (-0.5, "hurts")])
def test_planted_loops_are_a_question_of_their_own(fewer, outcome, knockouts):
    columns = ["arm", "seed", "row"]
    places = itertools.product(SMALL.arms, SMALL.seeds, range(12))
    loops = pd.DataFrame(places, columns=columns).assign(
        step=6, condition="as trained", scope=LOOPED, count=1, blocks=1, entry=0
    )
    loops["cluster"] = loops["row"] // 2
    loops["total"] = 0.5 - fewer * (loops["arm"] == "true")
    rows = {"training": pd.concat([planted(0.2), loops]), "knockouts": knockouts}
    analysis = analyse(SMALL, rows)
    found = analysis.verdicts[-1]
    assert [len(analysis.verdicts), found.verdict.outcome] == [3, outcome]
    assert "fewer greedy texts in a loop after 6 steps" in found.question
    contrasts = analysis.tables["contrasts"].query("scope == @LOOPED and arm == 'true'")
    np.testing.assert_allclose(contrasts["estimate"], -fewer, atol=1e-9)


def test_steps_to_the_loss_of_the_others_are_interpolated():
    table = efficiency(SMALL, planted(1.0))
    # The true arm falls by 2 nats in 6 steps, the others by 1.
    steps = table.query("scope == 'all' and arm == 'true'")["steps"]
    np.testing.assert_allclose(steps, 3.0, atol=1e-6)
    others = table.query("scope == 'all' and arm == 'current'")["steps"]
    np.testing.assert_allclose(others, 6.0, atol=1e-6)


def test_the_score_in_context_is_the_loss_late_in_a_window_minus_that_early():
    rows = planted(0.2)
    late, early = rows["scope"] == "late", rows["scope"] == "early"
    rows.loc[late, "total"] -= 3.0 + rows.loc[late, "row"]
    both = with_in_context(rows)
    found = both[both["scope"] == "in context"]
    keys = ["arm", "seed", "step", "condition", "row"]
    expected = rows[late].set_index(keys)["total"] - rows[early].set_index(keys)["total"]
    assert len(found) == len(expected)
    # The text before helps, so the score is below 0. Sums of a few tens in float64.
    np.testing.assert_allclose(
        found.set_index(keys)["total"],
        expected.loc[[*found[keys].itertuples(index=False, name=None)]],
        atol=1e-12,
    )
    np.testing.assert_allclose(found["total"], -3.0 - found["row"], atol=1e-12)
    assert both[both["scope"] != "in context"].equals(rows)


def test_the_score_of_a_point_is_that_of_its_best_head_in_each_seed():
    scores = {0: (0.1, 0.9, 0.2), 1: (0.5, 0.1, 0.0)}
    heads = pd.DataFrame(
        [
            (1, 0, arm, PREFIX_MATCHING, 6, seed, head, score * share)
            for arm, share in (("true", 1.0), ("none", 0.5))
            for seed, of_seed in scores.items()
            for head, score in enumerate(of_seed)
        ],
        columns=["blocks", "entry", "arm", "scope", "step", "seed", "row", "total"],
    )
    found = best_heads(heads).set_index("arm")
    assert set(found["score"]) == {PREFIX_MATCHING}
    # The best are 0.9 and 0.5, of different heads.
    assert found["best"].to_dict() == pytest.approx({"true": 0.7, "none": 0.35}, rel=1e-12)


def test_the_interval_widens_with_what_seeds_disagree_about():
    alike = planted(0.1)
    first = (alike["arm"] == "true") & (alike["seed"] == SMALL.seeds[0])
    last = (alike["arm"] == "true") & (alike["seed"] == SMALL.seeds[-1])
    apart = alike.assign(total=alike["total"] + 5.0 * first - 5.0 * last)
    narrow, wide = (
        difference(rows, SMALL.resampling, scope="all", arms=("true", "none")).interval
        for rows in (alike, apart)
    )
    assert narrow.estimate == pytest.approx(wide.estimate) == pytest.approx(-0.1)
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ("none", "true")}, 'equal must be "flops"'),
        ({"arms": ("none", "current")}, "arms must be none, true and"),
        ({"arms": ("none", "true", "guess")}, "controls of"),
        ({"networks": ((2, 2),)}, "got \\(2, 2\\)"),
        ({"windows": (5, 4)}, "no fewer at the end"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"seeds": ()}, "there must be a seed"),
        ({"seeds": (0, 0)}, "seeds must be different values"),
        ({"networks": ((1, 0), (1, 0))}, "networks must be different values"),
        ({"heads": 3}, "heads must divide width"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


def test_at_equal_operations_a_network_without_a_write_is_trained_for_longer(tmp_path):
    arms = ("none", "true")
    granted = replace(SMALL, arms=arms, equal="flops", networks=((2, 0),), seeds=(0,))
    longer = li.experiments.scratch(settings=granted, out=tmp_path)
    cost = longer.tables["cost"].set_index("arm")
    operations = cost["steps"] * cost["operations_of_a_step"]
    a_step = cost.loc["none-longer", "operations_of_a_step"]
    assert a_step == cost.loc["none", "operations_of_a_step"]
    assert abs(operations["none-longer"] - operations["true"]) <= a_step / 2
    assert cost["steps"].to_dict() == {"none": 6, "true": 6, "none-longer": 8}
    contrasts = longer.tables["contrasts"].query("arm == 'true' and condition == 'as trained'")
    assert set(contrasts["minus"]) == {"none", "none-longer"}
    method = longer.verdicts[0].method
    assert "trained for longer" in method
    assert "makes 8 steps" in method
    assert (
        li.experiments.trained_models(tmp_path)[ScratchTraining(2, 0, "none-longer", 0)].patch
        is None
    )
