"""The increment experiment: runs, what is measured, its tables and verdicts."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import lens_interventions as li
from lens_interventions.experiments import IncrementSettings
from lens_interventions.experiments.design.kept_writes import read_write
from lens_interventions.experiments.design.text_scopes import AS_TRAINED
from lens_interventions.experiments.design.trained_patches.losses import (
    CURVE,
    UNTRAINED,
)
from lens_interventions.experiments.design.trained_patches.splits import windows_by_part
from lens_interventions.experiments.increment.analysis import analyse, said_rate
from lens_interventions.experiments.increment.measurements import BASE
from lens_interventions.experiments.increment.stages import best_rate, try_rates
from lens_interventions.intervention.training import loop
from tests.support.small_increment import SMALL
from tests.support.stopped import assert_same_tables, counted, stopped
from tests.support.tiny import tiny_bridge

TABLES = ("contrasts", "losses", "curves", "base", "rows")


def small_bridge():
    return tiny_bridge("llama", dtype=torch.float32)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "increment"
    return li.experiments.increment(small_bridge, settings=SMALL, out=out), out


def test_a_run_gives_tables_verdicts_and_figures(finished):
    result, out = finished
    assert tuple(result.tables) == TABLES
    assert len(result.verdicts) == 4
    assert set(result.figures()) == {"gain", "curves", "base"}
    assert "Does the next token add" in li.report(out, out=out.parent / "report.html").read_text()


def test_the_base_is_trained_at_the_rate_that_did_best(finished):
    result, out = finished
    base = result.tables["base"]
    best = best_of(base[base["training"] == "trial of the base"])
    trained = base[base["training"] == "base"]
    assert set(trained["rate"]) == {best}
    assert trained["step"].tolist() == [0, 2, 4]
    write = read_write(li.experiments.read_tables(str(out))["base"]["write"].iloc[0])
    assert (write.source, write.settings["learning_rate"]) == ("current", best)
    assert write.settings["steps"] == SMALL.base_steps


def test_a_rate_at_which_a_trial_diverges_is_not_chosen_and_does_not_end_the_run(tmp_path):
    """In half precision a large step overflows."""
    bridge = tiny_bridge("llama", dtype=torch.float16)
    settings = replace(SMALL, learning_rates=(1e-2, 1e4), pilot_steps=4)
    units = {unit.name: unit for unit in try_rates(bridge, settings, {})}
    tried = pd.concat(
        unit.measure(bridge, **unit.parameters, file=tmp_path / f"{name}.safetensors")
        for name, unit in units.items()
    )
    assert tried["loss"].isna().tolist().count(True) == 1
    assert best_rate(tried) == 1e-2


def test_a_training_that_diverged_is_not_the_best():
    tried = pd.DataFrame(
        {"rate": [1e-3, 1e-2, 1e4], "step": 2, "loss": [3.0, 2.9, np.nan]}, index=[5, 5, 5]
    )
    assert best_rate(tried) == 1e-2
    diverged = tried.assign(loss=[np.nan, np.inf, np.nan])
    with pytest.raises(ValueError, match=r"rates 0\.001, 0\.01, 10000 all ended .+ give lower"):
        best_rate(diverged)


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ((1e-3, 1e-2, 0.1), "0.01, the best of 3 that were tried"),
        ((1e-2, 0.1), "0.01, the best and the lowest of 2 that were tried"),
        ((1e-3, 1e-2), "0.01, the best and the highest of 2 that were tried"),
        ((1e-2,), "0.01"),
    ],
)
def test_a_rate_at_the_edge_of_those_tried_is_said_to_be(rates, said):
    losses = [abs(np.log10(rate) + 2) for rate in rates]
    assert said_rate(pd.DataFrame({"rate": rates, "step": 2, "loss": losses})) == said


def best_of(tried):
    assert set(tried["rate"]) == set(SMALL.learning_rates)
    ends = tried[tried["step"] == SMALL.pilot_steps]
    return ends.loc[ends["loss"].idxmin(), "rate"]


def test_what_is_measured_is_the_loss_under_base_and_increment(finished):
    result, out = finished
    tables = li.experiments.read_tables(out)
    rows, bridge = tables["training"], small_bridge()
    windows = windows_by_part(bridge, SMALL)
    tokens = torch.tensor([window["tokens"] for window in windows["measured"]])
    base = read_write(tables["base"]["write"].iloc[0])
    rate = best_of(tables["trial"])
    options = replace(SMALL.options, learning_rate=rate)
    trained = li.train_patch(
        bridge,
        [window["tokens"] for window in windows["training"]],
        layer=1,
        rank=2,
        source="shuffled",
        base=base,
        steps=4,
        seed=1,
        options=options,
        held_out=[window["tokens"] for window in windows["choosing"]],
        progress=False,
    )
    patches = [None, base.patch(), trained.write.patch(seed=1)]
    expected = -li.teacher_forced_log_probs(
        bridge, tokens, patches, text_seeds=torch.arange(len(tokens))
    ).sum(-1)
    of_all = rows[rows["scope"] == "all"]
    for nats, source in zip(expected, (UNTRAINED, BASE, "shuffled"), strict=True):
        found = of_all[of_all["source"] == source]
        found = found[found["seed"] == (1 if source == "shuffled" else 0)]
        # In float32, and in batches of another size.
        np.testing.assert_allclose(found["total"], nats, rtol=1e-5)
    assert all(
        f"every control; learning rate {rate:g}, the " in found.method for found in result.verdicts
    )
    curve = rows[(rows["source"] == "shuffled") & (rows["seed"] == 1) & (rows["scope"] == CURVE)]
    np.testing.assert_allclose(curve["total"], trained.held_out["loss"], rtol=1e-5)


def test_a_run_that_was_stopped_goes_on_and_ends_in_the_same_numbers(finished, tmp_path):
    whole, _ = finished
    with stopped(loop.WriteTraining, "_step", call=17):
        li.experiments.increment(small_bridge, settings=SMALL, out=tmp_path)
    with counted(loop.WriteTraining, "_step") as steps:
        again = li.experiments.increment(small_bridge, settings=SMALL, out=tmp_path)
    # Four rates of two steps, the base of four, and two sources of two seeds. The second of these
    # was stopped before its first checkpoint.
    assert len(steps) == (4 * 2 + 4 + 4 * 4) - (4 * 2 + 4 + 4)
    assert_same_tables(again, whole)


class TestAnalysis:
    """On losses that are made up, so that the answer is known."""

    def rows(self, gain):
        """Losses of 3 nats, less by `gain` for the true token; the base takes off 0.3."""
        rng = np.random.default_rng(0)
        texts, seeds = rng.normal(3, 0.5, 12), rng.normal(0, 0.002, 2)
        less = {UNTRAINED: 0.0, BASE: 0.3, "true": 0.3 + gain, "shuffled": 0.3}
        made = []
        for source, taken in less.items():
            for seed in SMALL.seeds if source in SMALL.sources else (0,):
                same = {"condition": AS_TRAINED, "step": 4, "source": source, "seed": seed}
                for scope in ("all", "copyable", "other", "second copies"):
                    losses = texts + seeds[seed] - taken + rng.normal(0, 0.005, 12)
                    made += [
                        {"scope": scope, "row": row, "cluster": f"text {row}", **same}
                        | {"total": 10 * loss, "count": 10}
                        for row, loss in enumerate(losses)
                    ]
                if source in SMALL.sources:
                    point = {"scope": CURVE, "row": 0, "cluster": "", "total": 3.0, "count": 1}
                    made.append(point | same)
        tried = pd.DataFrame({"rate": [1e-3, 3e-2], "step": 2, "loss": [3.0, 2.9], "write": b""})
        rates = {"pilot": tried, "base": tried[1:], "trial": tried}
        return {"training": pd.DataFrame(made), **rates}

    @pytest.mark.parametrize(("gain", "outcome"), [(0.2, "helps"), (0.0, "no effect")])
    def test_a_planted_gain_is_found_and_no_other(self, gain, outcome):
        found = analyse(SMALL, self.rows(gain))
        assert [finding.verdict.outcome for finding in found.verdicts] == [outcome] * 4
        said = "learning rate 0.03, the best and the highest of 2 that were tried"
        assert all(finding.method.count(said) == 2 for finding in found.verdicts)
        table = found.tables["contrasts"].set_index(["source", "minus"])["estimate"]
        for minus, expected in ((BASE, -gain), ("shuffled", -gain), (UNTRAINED, -0.3 - gain)):
            np.testing.assert_allclose(table.loc[("true", minus)], expected, atol=0.02)
        np.testing.assert_allclose(table.loc[(BASE, UNTRAINED)], -0.3, atol=0.02)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"controls": ()}, "there must be a control"),
        ({"controls": ("true",)}, "controls must be some of random"),
        ({"learning_rates": (0.0,)}, "a learning rate above 0"),
        ({"base_steps": 0}, "base_steps must be at least 1"),
        (
            {
                "controls": ("shuffled", "zero"),
                "options": li.TrainingOptions(patience=None, bias=False),
            },
            "the control 'zero' writes only a bias: options.bias must be True",
        ),
        (
            {"options": li.TrainingOptions(patience=None, window=16, first_position=15)},
            "at position 15, and windows of 16 tokens have nothing to write there",
        ),
        ({"options": li.TrainingOptions()}, "patience is 5"),
    ],
)
def test_settings_that_make_no_sense(fields, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **fields)


def test_presets():
    quick, full = (IncrementSettings.preset(name, 30, 576) for name in ("quick", "full"))
    assert (full.layer, full.rank) == (23, 64)
    assert quick.base_steps < full.base_steps
    assert IncrementSettings.preset("full", 1, 16).rank == 16
    assert IncrementSettings.preset("full", 1).layer == 0


def test_a_layer_that_the_model_does_not_have():
    with pytest.raises(ValueError, match="the model has blocks 0 to 2, the patch asks for 3"):
        try_rates(small_bridge(), replace(SMALL, layer=3), {})


def test_copies_longer_than_the_model_reads():
    """In pieces, much of the first copy would be out of sight of the second."""
    message = "copy_length makes texts of 201 tokens, and the model reads 128 at once"
    with pytest.raises(ValueError, match=message):
        try_rates(small_bridge(), replace(SMALL, copy_length=100), {})


def test_penalties_reach_the_trainings_and_the_verdicts(tmp_path):
    options = replace(SMALL.options, write_penalty=5.0, change_penalty=2.0, final_rate=0.1)
    settings = replace(SMALL, seeds=(0,), samples=12, options=options)
    result = li.experiments.increment(small_bridge, settings=settings, out=tmp_path)
    kept = li.experiments.read_tables(str(tmp_path))["base"]["write"].iloc[0]
    trained = read_write(kept).settings
    assert (trained["write_penalty"], trained["change_penalty"]) == (5.0, 2.0)
    assert "preserved_texts" in trained
    own = li.experiments.read_tables(str(tmp_path))["own_texts"]
    assert own.groupby("text").size().tolist() == [SMALL.options.window] * 12
    assert own.groupby("text")["token"].apply(tuple).nunique() == 12
    assert "as long as the residual cost 5 nats" in result.verdicts[0].method
    assert "on 12 texts that the model wrote cost 2." in result.verdicts[0].method
    # What was penalised is told at each evaluation, as the base's training had it.
    told = result.tables["penalties"]
    steps = [0, 2, 4]
    for (_, source), curve in told.groupby(["penalised", "source"]):
        assert (source in settings.sources, curve["step"].tolist()) == (True, steps)
    assert set(told["penalised"]) == {"write_length", "kl"}
    # An increment begins at zero, above what the best step of the base, penalties included, wrote.
    begun = told[told["step"] == 0].set_index("penalised")["mean"]
    assert (begun["write_length"] == 0).all()
    base = result.tables["base"].query("training == 'base'")
    assert base["write_length"].iloc[0] == 0
    cost = base["loss"] + 5 * base["write_length"] + 2 * base["kl"]
    # Rounding of float32, in batches of other texts.
    np.testing.assert_allclose(begun["kl"], base["kl"][cost.idxmin()], atol=1e-6)
