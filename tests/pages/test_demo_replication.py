"""Committed full results on the demo page, beside a part of them that is measured again."""

from dataclasses import replace

import pytest

from lens_interventions.experiments import CopyingSettings, load_result
from lens_interventions.experiments.copying.again import copying_again
from lens_interventions.experiments.design.material import induction_sequences
from lens_interventions.experiments.design.prompts import prompt_items
from lens_interventions.experiments.engine.json_values import from_values
from lens_interventions.experiments.loops import again
from lens_interventions.measures.intervals import Interval
from lens_interventions.pages.demo import build_page
from lens_interventions.pages.demo import replication as module
from lens_interventions.pages.demo.readings import Readings
from lens_interventions.pages.demo.replication import overlap, replication
from tests.support.pages import ROOT
from tests.support.tiny import shared_bridge

RESULTS = ROOT / "results" / "smollm2-135m-instruct"


def interval(low, high):
    return Interval((low + high) / 2, low, high, 0.95, "BCa", 9)


def test_intervals_agree_when_they_have_a_number_in_common():
    assert overlap(interval(0, 1), interval(0.9, 2))
    assert overlap(interval(0.9, 2), interval(0, 1))
    assert overlap(interval(0, 3), interval(1, 2))
    assert not overlap(interval(0, 1), interval(1.1, 2))
    assert not overlap(interval(0, 1), interval(float("nan"), float("nan")))


@pytest.mark.parametrize("name", ["copying", "loops", "preservation", "learned"])
def test_full_results_are_there_and_say_how_they_were_made(name):
    full = load_result(RESULTS / name)
    assert full.header["model"]["name"] == "SmolLM2-135M-Instruct"
    assert {"torch", "transformers", "transformer_lens", "python"} <= set(full.header["versions"])
    assert full.verdicts
    figures = full.figures()
    for found in full.verdicts:
        assert found.figure in figures


def test_live_parts_agree_with_the_full_runs(default_bridge, monkeypatch):
    """Loops are left out here, for time."""
    monkeypatch.setattr(module, "_EXPERIMENTS", ("copying", "preservation"))
    section = replication(RESULTS, default_bridge)(Readings(default_bridge))
    assert len(section.conditions) == 4 + 4
    assert section.verdict == "agrees", section.conditions


def test_copying_is_asked_again_but_for_the_templates(default_bridge):
    """Every question but that of the templates is asked again, however little the material."""
    full = load_result(RESULTS / "copying")
    live = copying_again(
        default_bridge,
        replace(
            from_values(CopyingSettings, full.settings),
            induction_sequences=(1, 2),
            documents=(1, 1),
            document_tokens=32,
        ),
        full.tables["contrasts"],
    )
    questions = {found.question for found in full.verdicts}
    assert len(live) == 4
    assert set(live) < questions


def test_a_directory_without_runs_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="none of copying, loops, preservation, learned"):
        replication(tmp_path, shared_bridge("llama"))


def test_runs_of_another_model_are_refused_before_anything_is_measured(tmp_path):
    with pytest.raises(ValueError, match=r"copying was measured on SmolLM2.*is of tiny-llama"):
        build_page(shared_bridge("llama"), tmp_path / "index.html", results=RESULTS)


def test_copied_again_are_sequences_of_the_report_half_alone(default_bridge, monkeypatch):
    full = load_result(RESULTS / "copying")
    asked = []
    monkeypatch.setattr(
        module, "copying_again", lambda _, settings, __: asked.append(settings) or {}
    )
    module._live(default_bridge, full)
    live, whole = (
        [
            text.tokens
            for text in induction_sequences(default_bridge, settings)
            if text.half == "report"
        ]
        for settings in (*asked, from_values(CopyingSettings, full.settings))
    )
    assert live == whole[:16]


def test_sampled_again_is_what_the_full_run_compared(default_bridge, monkeypatch):
    full = load_result(RESULTS / "loops")
    asked = []
    monkeypatch.setattr(again, "measure_samples", lambda *arguments: asked.append(arguments))
    for number, name in enumerate(("loops_interval", "repetition_interval")):
        monkeypatch.setattr(again, name, lambda *_, n=number: interval(n, n + 1))
    assert module._live(default_bridge, full) == {
        full.verdicts[number].question: interval(number, number + 1) for number in (0, 1)
    }
    ((_, prompts, arms, _, _, new_tokens, _),) = asked
    everything = prompt_items(default_bridge, full.settings["prompts"], full.settings["seed"])
    assert prompts == [prompt for prompt in everything if prompt["half"] == "report"][:8]
    cell = {"layer": 14, "strength": 0.1, "mode": "add"}
    assert arms == [{"source": "true", **cell}, {"source": "shuffled", **cell}]
    assert new_tokens == full.settings["new_tokens"] == 256
