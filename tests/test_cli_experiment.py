"""`lens-interventions experiment`: what it passes on, what it prints, what it refuses."""

import sys
from pathlib import Path

import pytest

from lens_interventions import cli, experiments
from lens_interventions.experiments import Result
from lens_interventions.experiments.model_source import ModelSource
from tests.test_experiments_run import example, small_bridge


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Every experiment is the small one of the machinery's tests; what it was asked is kept."""
    asked: list[tuple] = []

    def instead(name: str):
        def run_small(model: object, preset: str, **options: object) -> Result:
            asked.append((name, model, preset, options))
            return experiments.run(example(), small_bridge, out=options["out"])

        return run_small

    for name in ("copying", "loops", "preservation"):
        monkeypatch.setattr(experiments, name, instead(name))
    return asked


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["lens-interventions", "experiment", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.mark.parametrize("name", ["copying", "loops", "preservation"])
def test_it_runs_the_experiment_and_says_what_was_found(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    calls: list[tuple],
    name: str,
) -> None:
    out = tmp_path / "run"
    assert command(monkeypatch, name, "--out", out, "--model", "somewhere", "--device", "cpu") == 0
    ((called, model, preset, options),) = calls
    assert (called, preset, options["out"], options["executor"]) == (name, "quick", out, None)
    assert (model.name, model.device) == ("somewhere", "cpu")
    printed = capsys.readouterr()
    assert "Is it low?" in printed.out
    assert f"wrote {out}" in printed.err
    # The same command goes on in the same directory.
    assert command(monkeypatch, name, "--out", out) == 0


def test_workers_are_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, calls: list[tuple]
) -> None:
    arguments = ("copying", "--out", tmp_path, "--preset", "full", "--workers", 2)
    assert command(monkeypatch, *arguments) == 0
    ((_, _, preset, options),) = calls
    assert preset == "full"
    assert type(options["executor"]).__name__ == "ProcessPoolExecutor"


def test_texts_of_the_users_own_replace_the_defaults(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, calls: list[tuple]
) -> None:
    # The settings need the depth of the model.
    monkeypatch.setattr(ModelSource, "bridge", lambda _self: small_bridge())
    assert command(monkeypatch, "copying", "--out", tmp_path, "--text", "a.txt", "--text", "b") == 0
    assert calls[0][3]["settings"].texts == ("a.txt", "b")
    assert max(calls[0][3]["settings"].layers) < 3


def test_texts_go_with_copying_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command(monkeypatch, "loops", "--out", tmp_path, "--text", "a.txt") == 2
    assert "--text belongs to copying" in capsys.readouterr().err


def test_a_foreign_directory_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    calls: list[tuple],
) -> None:
    (tmp_path / "thesis.tex").write_text("text")
    assert command(monkeypatch, "copying", "--out", tmp_path) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert error.count("\n") == 1
    assert "thesis.tex" in error


def test_a_model_that_is_not_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    missing = tmp_path / "no model"
    assert command(monkeypatch, "copying", "--out", tmp_path / "run", "--model", missing) == 1
    assert "is not a directory" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
