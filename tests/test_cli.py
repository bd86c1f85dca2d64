"""The command line on the default model: tables, files, and one line for every mistake."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from lens_interventions import cli
from lens_interventions.trajectory import Trajectory

TEXT = "The capital of France is"


def run(monkeypatch, capsys, *arguments):
    """Exit status, standard output and standard error of the command."""
    monkeypatch.setattr(sys, "argv", ["lens-interventions", *map(str, arguments)])
    try:
        cli.main()
        status = 0
    except SystemExit as stop:
        status = stop.code or 0
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_table_in_the_terminal(monkeypatch, capsys):
    status, out, err = run(monkeypatch, capsys, "lens", TEXT, "--layers", "0,15,final")
    assert status == 0, err
    assert "final" in out
    assert "Paris" in out


@pytest.mark.parametrize("suffix", ["csv", "json", "html", "safetensors"])
def test_results_in_files(monkeypatch, capsys, tmp_path, suffix):
    path = tmp_path / f"out.{suffix}"
    status, _, err = run(monkeypatch, capsys, "lens", TEXT, "--layers", "0,final", "--out", path)
    assert status == 0, err
    if suffix == "safetensors":
        assert Trajectory.load(path).points == ("0_pre", "final_post")
    elif suffix == "json":
        json.loads(path.read_text())
    else:
        assert "Paris" in path.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lens", ""], "empty"),
        (["lens", TEXT, "--layers", "99"], "99"),
        (["lens", TEXT, "--stat", "loss"], "loss"),
        (["lens", TEXT, "--model", "no/such-model"], "no/such-model"),
        (["lens", TEXT, "--out", "picture.xyz"], "xyz"),
        (["lens", "--file", "no-such-file.txt"], "no-such-file.txt"),
    ],
)
def test_mistakes_get_one_line(monkeypatch, capsys, arguments, message):
    status, out, err = run(monkeypatch, capsys, *arguments)
    assert status in (1, 2)
    assert message in out + err
    assert "Traceback" not in out + err


def test_help_of_every_command():
    result = CliRunner().invoke(cli.app, ["--help"])
    for command in ("lens", "demo", "report"):
        assert command in result.output
        assert CliRunner().invoke(cli.app, [command, "--help"]).exit_code == 0


def test_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "lens_interventions", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip()
