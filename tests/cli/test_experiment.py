"""`lens-interventions experiment`: what it passes on, what it prints, what it refuses."""

import functools
import inspect
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from pandas.testing import assert_frame_equal
from transformer_lens.model_bridge import TransformerBridge

from lens_interventions import experiments
from lens_interventions.cli.experiment import OWN_MODELS
from lens_interventions.experiments import Result, Unit
from lens_interventions.experiments.engine.model_source import ModelSource
from lens_interventions.experiments.plans import PLANS
from tests.support.processes import PROCESSES, lens_interventions
from tests.support.small_run import Settings, example, mean_logits, small_bridge
from tests.support.tiny import tiny_model, tiny_tokenizer

NAMES = tuple(PLANS)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Every experiment is the small one of the machinery's tests; what it was asked is kept."""
    asked: list[tuple] = []

    def instead(name: str):
        signature = inspect.signature(getattr(experiments, name))

        def run_small(model: object, *, preset: str, **options: object) -> Result:
            signature.bind(model, preset=preset, **options)
            asked.append((name, model, preset, options))
            return experiments.run(example(), small_bridge, out=options["out"])

        return run_small

    for name in NAMES:
        monkeypatch.setattr(experiments, name, instead(name))
    return asked


@pytest.fixture
def run(command: Run) -> Run:
    return functools.partial(command, "experiment")


def test_the_help_of_a_narrow_terminal_breaks_no_name(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    status, printed, _ = run("--help")
    assert status == 0
    assert all(name in printed for name in (*NAMES, *OWN_MODELS))
    assert "|" not in printed.replace("<quick|full>", "")


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_the_experiment_and_says_what_was_found(
    run: Run, tmp_path: Path, calls: list[tuple], name: str
) -> None:
    out = tmp_path / "run"
    status, printed, error = run(name, "--out", out, "--model", "somewhere", "--device", "cpu")
    assert status == 0
    ((called, model, preset, options),) = calls
    assert (called, preset, options["out"], options["executor"]) == (name, "quick", out, None)
    assert (model.name, model.device) == ("somewhere", "cpu")
    assert "Is it low?" in printed
    assert f"wrote {out}" in error
    # The same command goes on in the same directory.
    assert run(name, "--out", out)[0] == 0


@pytest.mark.parametrize("name", OWN_MODELS)
def test_who_trains_models_needs_none_and_takes_none(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    asked: list[dict] = []

    def run_small(**options: object) -> Result:
        inspect.signature(trains).bind(**options)
        asked.append(options)
        return experiments.run(example(), small_bridge, out=options["out"])

    trains = getattr(experiments, name)
    monkeypatch.setattr(experiments, name, run_small)
    assert run(name, "--out", tmp_path / "run")[0] == 0
    assert [options["preset"] for options in asked] == ["quick"]
    status, _, error = run(name, "--out", tmp_path / "other", "--model", "gpt2")
    assert status == 2
    assert f"{name} trains models of its own" in error


def test_workers_are_processes(run: Run, tmp_path: Path, calls: list[tuple]) -> None:
    status, _, _ = run("copying", "--out", tmp_path, "--preset", "full", "--workers", 2)
    assert status == 0
    ((_, _, preset, options),) = calls
    assert preset == "full"
    assert type(options["executor"]).__name__ == "ProcessPoolExecutor"


# Says which process its worker is, and gives it a unit of ten minutes. Python ignores Ctrl-C where
# the shell that began it does, as for commands in the background.
LONG_UNIT = """
import os, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from lens_interventions.cli.experiment import _processes
with _processes(1) as pool:
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 600).result()
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_worker_ends_in_its_unit_when_the_run_ends(sent: signal.Signals) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", LONG_UNIT],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert run.stdout is not None
    worker = psutil.Process(int(run.stdout.readline()))
    run.send_signal(sent)
    run.wait(timeout=60)
    worker.wait(timeout=60)  # raises where it goes on


def interrupted(bridge: TransformerBridge, start: int, gate: str) -> pd.DataFrame:
    """The last unit of the small run, in which the user presses Ctrl-C."""
    if start == 6:
        signal.raise_signal(signal.SIGINT)
    return mean_logits(bridge, start, gate)


def test_who_stops_a_run_reads_what_is_kept(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_stage(_bridge: object, settings: Settings, _rows: object) -> list[Unit]:
        return [
            Unit("first", f"unit-{n}", interrupted, {"start": n, "gate": settings.gate})
            for n in settings.starts
        ]

    experiment = replace(example(), stages={"first": first_stage})
    monkeypatch.setattr(
        experiments,
        "slopes",
        lambda out, **_options: experiments.run(experiment, small_bridge, out=out),
    )
    out = tmp_path / "run"
    # A shell may have begun the tests with Ctrl-C ignored, see LONG_UNIT.
    as_found = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status, _, error = run("slopes", "--out", out)
    finally:
        signal.signal(signal.SIGINT, as_found)
    assert status == 130
    last = error.splitlines()[-1]
    assert last == f"Stopped: 3 of 4 units kept in {out}; the same command continues"


def test_a_command_that_was_killed_goes_on_and_ends_in_the_same_numbers(
    run: Run, tmp_path: Path
) -> None:
    saved, out, whole = tmp_path / "model", tmp_path / "run", tmp_path / "whole"
    tiny_model("llama", dtype=torch.float32, num_hidden_layers=2).save_pretrained(saved)
    tiny_tokenizer().save_pretrained(saved)
    options = ("--model", saved, "--device", "cpu", "--preset", "quick")
    assert run("unlikely", "--out", whole, *options)[0] == 0

    arguments = ("experiment", "unlikely", "--out", out, *options)
    process = PROCESSES.Process(target=lens_interventions, args=arguments)
    process.start()
    while not list(out.glob("rows/*/*.parquet")) and process.exitcode is None:
        time.sleep(0.005)
    process.kill()
    process.join()
    finished = {file: file.stat().st_mtime_ns for file in out.glob("rows/*/*.parquet")}
    assert 0 < len(finished) < len(list(whole.glob("rows/*/*.parquet")))
    with pytest.raises(experiments.RunDirectoryError, match="is not finished"):
        experiments.load_result(out)

    assert run("unlikely", "--out", out, *options)[0] == 0
    assert all(file.stat().st_mtime_ns == when for file, when in finished.items())
    result, expected = experiments.load_result(out), experiments.load_result(whole)
    assert repr(result.verdicts) == repr(expected.verdicts)  # by repr, as nan != nan
    assert_frame_equal(result.to_dataframe(), expected.to_dataframe(), check_exact=True)


def test_texts_of_the_users_own_replace_the_defaults(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, calls: list[tuple]
) -> None:
    # The settings need the depth of the model.
    monkeypatch.setattr(ModelSource, "bridge", lambda _self: small_bridge())
    texts = (str(tmp_path / "a.txt"), "prose", "dataset:wikitext:text:test")
    (tmp_path / "a.txt").write_text("text")
    options = [word for text in texts for word in ("--text", text)]
    assert run("copying", "--out", tmp_path / "run", *options)[0] == 0
    assert calls[0][3]["settings"].texts == texts
    assert max(calls[0][3]["settings"].layers) < 3


def test_texts_go_with_copying_alone(run: Run, tmp_path: Path) -> None:
    status, _, error = run("loops", "--out", tmp_path, "--text", "a.txt")
    assert status == 2
    assert "--text belongs to copying" in error


def test_a_foreign_directory_is_one_line(run: Run, tmp_path: Path, calls: list[tuple]) -> None:
    (tmp_path / "thesis.tex").write_text("text")
    status, _, error = run("copying", "--out", tmp_path)
    assert status == 1
    assert error.startswith("Error: ")
    assert error.count("\n") == 1
    assert "thesis.tex" in error


def test_a_model_that_is_not_there_is_one_line(run: Run, tmp_path: Path) -> None:
    missing = tmp_path / "no model"
    status, _, error = run("copying", "--out", tmp_path / "run", "--model", missing)
    assert status == 1
    assert "is not a directory" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "wrong", "message"),
    [
        (("--text", "no.txt"), 1, "there is no text file no.txt"),
        (("--text", "dataset:wikitext"), 2, "expected dataset:NAME:COLUMN"),
        (("--out", "pyproject.toml"), 1, "pyproject.toml is a file: choose a directory"),
        (("--out", "/proc/run"), 1, "/proc/run cannot be made"),
    ],
)
def test_what_is_wrong_without_a_model_is_said_before_one_is_loaded(
    run: Run, tmp_path: Path, options: tuple, wrong: int, message: str
) -> None:
    missing = tmp_path / "no model"
    out = tmp_path / "run"
    status, _, error = run("copying", "--out", out, "--model", missing, *options)
    assert status == wrong
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()
