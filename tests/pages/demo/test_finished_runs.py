"""Finished runs on the demo page: their verdicts, the commands that made them, what is refused."""

import json

import pytest

from lens_interventions.experiments import (
    CopyingSettings,
    IncrementSettings,
    LearnedSettings,
    load_result,
)
from lens_interventions.experiments.engine.json_values import to_values
from lens_interventions.model.fingerprint import weights_sha256
from lens_interventions.pages.demo import build_page
from lens_interventions.pages.demo.finished_runs import finished_runs
from lens_interventions.pages.demo.page import render
from tests.support.made_up_runs import INTERVALS, save_run
from tests.support.pages import ROOT
from tests.support.tiny import shared_bridge

RESULTS = ROOT / "results" / "smollm2-135m-instruct"
EXPERIMENTS = [
    "copying",
    "increment",
    "last_word",
    "learned",
    "likeliest",
    "loops",
    "preservation",
    "reader",
    "recall",
    "slopes",
    "unlikely",
]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_full_results_are_there_and_say_how_they_were_made(name):
    full = load_result(RESULTS / name)
    assert full.header["model"]["name"] == "SmolLM2-135M-Instruct"
    assert {"torch", "transformers", "transformer_lens", "python"} <= set(full.header["versions"])
    assert full.verdicts
    figures = full.figures()
    for found in full.verdicts:
        assert found.figure in figures


def test_the_committed_verdicts_are_shown_with_the_commands_that_made_them(default_bridge):
    runs = finished_runs(RESULTS, default_bridge)
    assert [run.title for run in runs] == [
        name.replace("_", " ").capitalize() for name in EXPERIMENTS
    ]
    for name, run in zip(EXPERIMENTS, runs, strict=True):
        stored = json.loads((RESULTS / name / "result.json").read_text())
        assert [(card.question, card.outcome) for card in run.cards] == [
            (found["question"], found["verdict"]["outcome"]) for found in stored["verdicts"]
        ]
        figure = load_result(RESULTS / name).figures()[stored["verdicts"][0]["figure"]]
        assert run.figure == figure
    # With more processes the numbers are the same.
    readme = (RESULTS / "README.md").read_text().replace(" --workers 2", "").splitlines()
    commands = {run.title: run.command for run in runs}
    # Their settings are their own, and stand there in Python.
    for title in ("Learned", "Likeliest", "Loops", "Reader"):
        assert commands.pop(title) is None
    assert set(commands.values()) <= set(readme)


def test_the_committed_loops_were_sampled_at_one_cell():
    full = load_result(RESULTS / "loops")
    assert full.settings["new_tokens"] == 128
    assert "The cell of the patch (layer 14, add 0.1) was chosen" in full.verdicts[0].method
    conditions = full.tables["conditions"]
    # Of the controls a run shows samples of one alone.
    shown = conditions["condition"].isin(full.tables["samples"]["condition"])
    (control,) = conditions[shown & (conditions["family"] == "controls")].to_dict("records")
    cell = {name: control[name] for name in ("source", "layer", "strength", "mode")}
    assert cell == {"source": "current", "layer": 14, "strength": 0.1, "mode": "add"}


@pytest.fixture
def of_the_tiny_model():
    """What a run of the tiny Llama says of its model."""
    bridge = shared_bridge("llama")
    return {"name": "owner/tiny-llama", "weights_sha256": weights_sha256(bridge)}


def test_no_command_makes_a_run_in_compatibility_mode(tmp_path, of_the_tiny_model):
    model = {**of_the_tiny_model, "compatibility_mode": True}
    settings = to_values(CopyingSettings.preset("quick", 3))
    save_run(tmp_path / "copying", "copying", settings=settings, model=model)
    (run,) = finished_runs(tmp_path, shared_bridge("llama"))
    assert run.command is None


def test_a_command_names_preset_and_model(tmp_path, of_the_tiny_model):
    settings = to_values(CopyingSettings.preset("quick", 3))
    older = {**settings, "a setting that is gone": 1}
    del older["recent"]
    for name, values in (
        ("copying", settings),
        ("older", older),
        ("own", {**settings, "seed": 7}),
        ("patched", {**settings, "patch": {**settings["patch"], "scale": "raw"}}),
    ):
        save_run(tmp_path / name, "copying", settings=values, model=of_the_tiny_model)
    save_run(tmp_path / "users", "an experiment of the user's", model=of_the_tiny_model)
    runs = finished_runs(tmp_path, shared_bridge("llama"))
    quick = (
        "lens-interventions experiment copying --preset quick --model owner/tiny-llama "
        "--dtype float64"
    )
    assert {run.title: run.command for run in runs} == {
        "Copying": f"{quick} --out runs/copying",
        "Copying (older)": f"{quick} --out runs/copying",
        "Copying (own)": None,
        "Copying (patched)": None,
        "An experiment of the user's (users)": None,
    }


@pytest.mark.parametrize(
    ("name", "dtype", "options"),
    [
        ("SmolLM2-135M-Instruct", "float32", ""),
        ("SmolLM2-135M-Instruct", "bfloat16", "--dtype bfloat16 "),
        ("owner/model-1.5", "float32", "--model owner/model-1.5 "),
        # The last part of a directory, or a hub name without an owner: nobody can tell.
        ("tiny-llama", "float32", None),
        ("/home/me/tiny-llama", "float32", None),
    ],
)
def test_a_command_loads_the_model_of_the_run_or_there_is_none(
    tmp_path, of_the_tiny_model, name, dtype, options
):
    settings = to_values(CopyingSettings.preset("quick", 3))
    model = {**of_the_tiny_model, "name": name, "dtype": dtype}
    save_run(tmp_path / "copying", "copying", settings=settings, model=model)
    (run,) = finished_runs(tmp_path, shared_bridge("llama"))
    quick = f"lens-interventions experiment copying --preset quick {options}--out runs/copying"
    assert run.command == (None if options is None else quick)


@pytest.mark.parametrize("kind", [IncrementSettings, LearnedSettings])
@pytest.mark.parametrize("preset", ["quick", "full"])
def test_a_preset_of_a_narrow_model_is_known_again(tmp_path, of_the_tiny_model, kind, preset):
    name = kind.__name__.removesuffix("Settings").lower()
    settings, model = kind.preset(preset, 3, 8), {**of_the_tiny_model, "d_model": 8}
    save_run(tmp_path / name, name, settings=to_values(settings), model=model)
    (run,) = finished_runs(tmp_path, shared_bridge("llama"))
    assert run.command.startswith(f"lens-interventions experiment {name} --preset {preset} ")


def test_the_page_shows_verdicts_commands_and_figures(tmp_path, of_the_tiny_model):
    settings = to_values(CopyingSettings.preset("quick", 3))
    save_run(tmp_path / "copying", "copying", settings=settings, model=of_the_tiny_model)
    save_run(tmp_path / "own", "loops", model=of_the_tiny_model)
    bridge = shared_bridge("llama")
    page = render([], bridge, runs=finished_runs(tmp_path, bridge), seconds=1)
    for outcome in INTERVALS:
        assert page.count(f'<p class="question">Is it &lt;{outcome}&gt;?</p>') == 2
        assert page.count(f"1 “{outcome}”") == 2
    assert page.count("<code>lens-interventions experiment") == 1
    assert "settings of its own" in page
    assert page.count('data-figure="run-') == 2


def test_outcomes_are_counted_for_each_run(tmp_path, of_the_tiny_model):
    save_run(tmp_path / "a", "copying", model=of_the_tiny_model)
    twice = {"again": INTERVALS["helps"], **INTERVALS}
    save_run(tmp_path / "b", "loops", twice, model=of_the_tiny_model)
    runs = finished_runs(tmp_path, shared_bridge("llama"))
    others = "1 “helps a little”, 1 “hurts”, 1 “no effect”, 1 “undecided”"
    assert [run.outcomes for run in runs] == [f"1 “helps”, {others}", f"2 “helps”, {others}"]


def test_a_directory_without_runs_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no finished run in"):
        finished_runs(tmp_path, shared_bridge("llama"))


def test_runs_of_another_model_are_refused_before_anything_is_measured(tmp_path):
    with pytest.raises(ValueError, match=r"copying was measured on SmolLM2.*is about tiny-llama"):
        build_page(shared_bridge("llama"), tmp_path / "index.html", results=RESULTS)
