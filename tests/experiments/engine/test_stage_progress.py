"""What is seen of a stage: a bar that moves inside units, or a line a minute."""

import re
import sys
import time
from dataclasses import replace

import pandas as pd
import pytest
from transformer_lens.model_bridge import TransformerBridge

from lens_interventions._progress import steps
from lens_interventions.experiments import Unit, run
from lens_interventions.experiments.engine import stage_progress
from lens_interventions.experiments.engine.stage_progress import StageProgress
from tests.support.small_run import example, mean_logits, small_bridge


def in_steps(bridge: TransformerBridge, start: int, gate: str) -> pd.DataFrame:
    """A unit that says how far it is."""
    for _ in steps(range(4)):
        time.sleep(0.11)  # bars are drawn ten times a second at most
        rows = mean_logits(bridge, start, gate)
    return rows


def stage(*_: object) -> list[Unit]:
    return [Unit("first", f"unit-{n}", in_steps, {"start": n, "gate": "."}) for n in (3, 4)]


def test_without_a_terminal_there_is_a_line_at_each_end_of_a_stage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(replace(example(), stages={"first": stage}), small_bridge, progress=True)
    begun, ended, analysed = capsys.readouterr().err.splitlines()
    assert begun == "example, first: 2 units, 0 of them kept"
    assert re.fullmatch(r"example, first: done in \d+ s", ended)
    assert re.fullmatch(r"example, analysis: done in \d+ s", analysed)


def test_without_a_terminal_a_long_unit_says_line_after_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_progress, "_BETWEEN_LINES", 0.01)
    with StageProgress("copying, controls") as shown:
        wait_for("copying, controls: 0 s so far", capsys)  # units are made
        shown.begin(9, kept=2)
        wait_for("copying, controls: 2 of 9 units, 0 s so far", capsys)
        shown.inside(0.25)
        wait_for("copying, controls: 2.25 of 9 units, 0 s so far", capsys)
        shown.finished()
        wait_for("copying, controls: 3 of 9 units, 0 s so far", capsys)
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"copying, controls: done in \d+ s", last)


def wait_for(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Return as soon as the line is seen, whatever the seconds in it; fail if it never comes."""
    deadline = time.monotonic() + 60
    while line.replace(" 0 s", "") not in re.sub(r" \d+ s", "", capsys.readouterr().err):
        assert time.monotonic() < deadline, f"not seen: {line}"
        time.sleep(0.01)


def test_the_bar_moves_inside_a_unit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run(replace(example(), stages={"first": stage}), small_bridge, progress=True)
    shown = re.findall(r"([\d.]+)/2 ", capsys.readouterr().err)
    assert {"0.25", "0.5", "1.75"} <= set(shown)
    assert list(map(float, shown)) == sorted(map(float, shown))
    assert float(shown[-1]) == 2


def test_what_was_kept_counts_as_done_but_not_as_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with StageProgress("copying, controls") as shown:
        shown.begin(9, kept=6)
        assert "6/9" in capsys.readouterr().err
        shown.inside(0.5)
        shown.inside(0.1)  # another part of the unit begins: the bar does not go back
        shown.finished()
    assert capsys.readouterr().err.rstrip().split("\r")[-1].count("7.0/9") == 1


def test_without_a_label_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with StageProgress(None) as shown:
        shown.begin(2, kept=0)
        shown.inside(0.5)
        shown.finished()
    assert capsys.readouterr().err == ""
