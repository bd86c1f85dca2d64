"""Committed full results on the demo page, beside a part of them that is measured again."""

from pathlib import Path

import pytest

from lens_interventions.demo import replication as module
from lens_interventions.demo.readings import Readings
from lens_interventions.demo.replication import overlap, replication
from lens_interventions.experiments import load_result
from lens_interventions.intervals import Interval

RESULTS = Path(__file__).parents[1] / "results" / "smollm2-135m-instruct"


def interval(low, high):
    return Interval((low + high) / 2, low, high, 0.95, "BCa", 9)


def test_intervals_agree_when_they_have_a_number_in_common():
    assert overlap(interval(0, 1), interval(0.9, 2))
    assert overlap(interval(0.9, 2), interval(0, 1))
    assert overlap(interval(0, 3), interval(1, 2))
    assert not overlap(interval(0, 1), interval(1.1, 2))
    assert not overlap(interval(0, 1), interval(float("nan"), float("nan")))


@pytest.mark.parametrize("name", ["copying", "loops", "preservation"])
def test_full_results_are_there_and_say_how_they_were_made(name):
    full = load_result(RESULTS / name)
    assert full.header["model"]["name"] == "SmolLM2-135M-Instruct"
    assert {"torch", "transformers", "transformer_lens", "python"} <= set(full.header["versions"])
    assert full.verdicts
    figures = full.figures()
    for found in full.verdicts:
        assert found.figure in figures


@pytest.mark.parametrize("name", ["copying", "loops"])
def test_the_live_part_is_measured_where_the_full_run_chose(name):
    full = load_result(RESULTS / name)
    live = module._slice(full)
    chosen = f"layer {live.layers[0]}, {live.modes[0]} {live.strengths[0]:g}"
    for found in module._comparable(full):
        assert chosen in found.method


def test_a_live_part_agrees_with_the_full_run(default_bridge, monkeypatch):
    monkeypatch.setattr(module, "_EXPERIMENTS", {"preservation": module.preservation})
    section = replication(RESULTS)(Readings(default_bridge))
    assert section.verdict == "agrees", section.conditions
    assert len(section.conditions) == 4


def test_a_directory_without_runs_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="none of copying, loops, preservation"):
        replication(tmp_path)
