"""The reader experiment: runs, what is measured, its tables and verdicts."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import lens_interventions as li
from lens_interventions.experiments.design.text_scopes import AS_TRAINED, TAKEN_AWAY
from lens_interventions.experiments.design.trained_patches.losses import (
    CURVE,
    UNTRAINED,
)
from lens_interventions.experiments.design.trained_patches.splits import (
    second_copies,
    windows_by_part,
)
from lens_interventions.experiments.reader.analysis import analyse
from lens_interventions.experiments.reader.stages import training_stage
from lens_interventions.intervention.training import loop
from tests.support.small_reader import SMALL
from tests.support.stopped import assert_same_tables, counted, stopped
from tests.support.tiny import tiny_bridge

TABLES = ("contrasts", "losses", "curves", "rows")


def small_bridge():
    return tiny_bridge("llama", dtype=torch.float32)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "reader"
    return li.experiments.reader(small_bridge, settings=SMALL, out=out), out


def test_a_run_gives_tables_verdicts_and_figures(finished):
    result, out = finished
    assert tuple(result.tables) == TABLES
    assert len(result.verdicts) == 4
    assert set(result.figures()) == {"gain", "curves"}
    curve = result.tables["curves"].query("source == 'true'")
    assert curve["step"].tolist() == [0, 2, 4]
    assert "Does a reader that adapts" in li.report(out, out=out.parent / "report.html").read_text()


def trained_alone(bridge, source, *, seed):
    """What a unit of the run trains, by the library."""
    name = f"{source}-seed{seed}"
    (unit,) = [unit for unit in training_stage(bridge, SMALL, {}) if unit.name == name]
    return li.train_patch(
        bridge,
        [window["tokens"] for window in unit.parameters["texts"]["training"]],
        layer=1,
        source=source,
        strength=SMALL.strength,
        adapt=SMALL.adapt,
        adapter_rank=2,
        steps=4,
        seed=seed,
        options=SMALL.options,
        held_out=[window["tokens"] for window in unit.parameters["texts"]["choosing"]],
        progress=False,
    )


def test_a_write_that_is_taken_away_leaves_the_adapted_model(finished):
    bridge = small_bridge()
    tokens = torch.tensor([w["tokens"] for w in windows_by_part(bridge, SMALL)["measured"]])
    trained = trained_alone(bridge, "true", seed=0)
    with trained.reader.on(bridge):
        alone = -li.teacher_forced_log_probs(bridge, tokens, None)
        written = -li.teacher_forced_log_probs(bridge, tokens, trained.patch)
    rows = li.experiments.read_tables(finished[1])["training"]
    here = rows.query("source == 'true' and seed == 0 and scope == 'all'")
    for condition, nats in ((AS_TRAINED, written), (TAKEN_AWAY, alone)):
        found = here[here["condition"] == condition]["total"]
        np.testing.assert_allclose(found, nats.sum(1), rtol=1e-5)  # float32
    # The two are told apart by that.
    assert not np.allclose(alone.sum(1), written.sum(1), rtol=1e-4)


def test_what_is_measured_is_the_loss_of_the_adapted_model(finished):
    """Of the model as it is too; the windows of the curve are others."""
    _, out = finished
    rows = li.experiments.read_tables(out)["training"]
    bridge = small_bridge()
    windows = windows_by_part(bridge, SMALL)["measured"]
    tokens = torch.tensor([window["tokens"] for window in windows])
    plain = rows.query(f"source == '{UNTRAINED}' and scope == 'all'")
    nats = -li.teacher_forced_log_probs(bridge, tokens, None)
    np.testing.assert_allclose(plain["total"], nats.sum(1), rtol=1e-5)

    trained = trained_alone(bridge, "current", seed=1)
    copies = torch.tensor(second_copies(bridge, SMALL))
    with trained.reader.on(bridge):
        adapted = -li.teacher_forced_log_probs(bridge, tokens, trained.patch)
        again = -li.teacher_forced_log_probs(bridge, copies, trained.patch)
    here = rows[(rows["source"] == "current") & (rows["seed"] == 1)]
    found = here[here["scope"] == "all"]
    np.testing.assert_allclose(found["total"], adapted.sum(1), rtol=1e-5)
    assert found["cluster"].tolist() == [window["cluster"] for window in windows]
    second = here[here["scope"] == "second copies"]
    assert set(second["count"]) == {SMALL.copy_length - 1}
    np.testing.assert_allclose(second["total"], again[:, 1 - SMALL.copy_length :].sum(1), rtol=1e-5)
    curve = here[here["scope"] == CURVE]
    np.testing.assert_allclose(curve["total"], trained.held_out["loss"], rtol=1e-5)
    parts = here.query("scope == 'copyable' or scope == 'other'").groupby("row")
    np.testing.assert_allclose(parts["total"].sum(), found["total"], rtol=1e-5)
    assert 0 < here.query("scope == 'copyable'")["count"].sum() < found["count"].sum()


def test_a_run_that_was_stopped_goes_on_and_ends_in_the_same_numbers(finished, tmp_path):
    whole, _ = finished
    with stopped(loop.WriteTraining, "_step", call=7):
        li.experiments.reader(small_bridge, settings=SMALL, out=tmp_path)
    with counted(loop.WriteTraining, "_step") as steps:
        again = li.experiments.reader(small_bridge, settings=SMALL, out=tmp_path)
    # Three sources of two seeds. The second training goes on from its third step.
    assert len(steps) == 6 * 4 - (4 + 2)
    assert_same_tables(again, whole)


class TestAnalysis:
    """On losses that are made up, so that the answer is known."""

    N_TEXTS = 12
    # Student's t of two seeds leaves room for anything.
    SETTINGS = replace(SMALL, seeds=(0, 1, 2))

    def rows(self, gain):
        """Losses of 3 nats, less by `gain` for the true token, with noise shared by all readers."""
        rng = np.random.default_rng(0)
        texts, seeds = rng.normal(3, 0.5, self.N_TEXTS), rng.normal(0, 0.02, 3)
        made = []
        for source in (UNTRAINED, *self.SETTINGS.sources):
            for seed in (0,) if source == UNTRAINED else self.SETTINGS.seeds:
                conditions = [AS_TRAINED, *([TAKEN_AWAY] if source == "true" else [])]
                for condition in conditions:
                    less = gain if (source, condition) == ("true", AS_TRAINED) else 0.0
                    for scope in ("all", "copyable", "other", "second copies"):
                        own = rng.normal(0, 0.005, self.N_TEXTS)
                        losses = texts + seeds[seed] - less + own
                        made += [
                            {
                                "scope": scope,
                                "condition": condition,
                                "step": 4,
                                "row": row,
                                "cluster": f"text {row}",
                                "total": 10 * loss,
                                "count": 10,
                                "source": source,
                                "seed": seed,
                            }
                            for row, loss in enumerate(losses)
                        ]
                if source != UNTRAINED:
                    point = {"scope": CURVE, "condition": AS_TRAINED, "step": 0, "row": 0}
                    rest = {"cluster": "", "total": 3.0, "count": 1, "source": source, "seed": seed}
                    made.append(point | rest)
        return {"training": pd.DataFrame(made)}

    @pytest.mark.parametrize(("gain", "outcome"), [(0.2, "helps"), (0.0, "no effect")])
    def test_a_planted_gain_is_found_and_no_other(self, gain, outcome):
        found = analyse(self.SETTINGS, self.rows(gain))
        assert [finding.verdict.outcome for finding in found.verdicts] == [outcome] * 4
        table = found.tables["contrasts"]
        as_trained = table[table["condition"] == AS_TRAINED]
        np.testing.assert_allclose(as_trained["estimate"], -gain, atol=0.04)
        taken = table[table["condition"] == TAKEN_AWAY]
        np.testing.assert_allclose(taken["estimate"], 0.0, atol=0.04)

    @pytest.mark.parametrize(
        ("strength", "said"),
        [(0.5, "trained without a write"), (None, "trained with a learned bias alone")],
    )
    def test_what_stands_for_no_patch_is_said(self, strength, said):
        found = analyse(replace(SMALL, strength=strength), self.rows(0.0))
        assert all(said in finding.method for finding in found.verdicts)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"controls": ("current",)}, "zero must be among the controls"),
        ({"controls": ("zero", "true")}, "controls must be some of random"),
        ({"seeds": (0, 0)}, "seeds must be one or more different numbers"),
        ({"options": li.TrainingOptions()}, "patience is 5"),
        ({"rank": 0}, "rank must be at least 1"),
        (
            {"strength": 0.2, "options": li.TrainingOptions(patience=None, write_penalty=0.1)},
            "a write_penalty of 0.1 cannot make it shorter",
        ),
        ({"windows": (0, 8)}, "two numbers of at least 1"),
    ],
)
def test_settings_that_make_no_sense(fields, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **fields)


def test_a_layer_that_the_model_does_not_have():
    with pytest.raises(ValueError, match="the model has blocks 0 to 2, the patch asks for 3"):
        training_stage(small_bridge(), replace(SMALL, layer=3), {})


def test_updates_of_a_rank_beyond_the_model_are_refused_before_anything_is_measured():
    with pytest.raises(ValueError, match="from 1 to the model's width 32; got 999"):
        training_stage(small_bridge(), replace(SMALL, rank=999), {})
