"""What is trained on and what is measured."""

import dataclasses
from pathlib import Path

import pytest

from lens_interventions import materials
from lens_interventions.experiments import LearnedSettings
from lens_interventions.experiments.design.sequences import TokenSequence, token_list
from lens_interventions.experiments.learned.splits import measured_sequences, training_texts
from tests.support.tiny import shared_bridge


@pytest.mark.usefixtures("few_templates")
class TestTexts:
    def test_no_document_is_trained_on_and_measured(self) -> None:
        bridge = shared_bridge("llama")
        settings = LearnedSettings.preset("quick", 3)
        measured = measured_sequences(bridge, settings)
        texts = training_texts(bridge, settings, measured["text"])
        kept = [t for t in measured["text"] if t.tags == "python_reference"]
        assert len(kept) == 10
        titles = {t.cluster.removeprefix("python_reference: ") for t in kept}
        assert len(texts) <= len(materials.python_reference()) - len(titles)
        assert len(texts) > 30
        beginnings = {tuple(text[:40]) for text in texts}
        assert beginnings.isdisjoint({t.tokens[:40] for t in kept})
        assert all(text[0] == bridge.tokenizer.bos_token_id for text in texts)
        assert {t.tags for t in measured["text"]} == {"prose", "python_reference", "python_code"}
        assert {t.half for t in measured["induction"]} == {"selection", "report"}

    def test_nor_is_one_that_repeats_a_measured_one(self, tmp_path: Path) -> None:
        bridge, corpus, other = shared_bridge("llama"), tmp_path / "mine.txt", tmp_path / "b.txt"
        measured, section, quoting, unlike = (d.text for d in materials.prose()[:4])
        section = "Another heading\n" + " ".join(measured.split()[20:80])
        quoting = f"{quoting} {' '.join(measured.split()[:16])}"
        corpus.write_text("\n\n".join([measured, section, quoting, unlike]))
        other.write_text(f"{measured.upper()}")
        settings = dataclasses.replace(LearnedSettings.preset("quick", 3), corpus=str(corpus))
        material = dataclasses.replace(settings.material, texts=(str(other),))
        settings = dataclasses.replace(settings, material=material)
        wanted = [bridge.tokenizer.bos_token_id, *token_list(bridge, unlike)]
        for source in (corpus, other):
            sequence = TokenSequence(0, "report", f"{source}: 0", "", (1, 2, 3), 0)
            assert training_texts(bridge, settings, [sequence]) == [wanted]
        assert len(training_texts(bridge, settings, [])) == 3

    def test_one_document_is_not_enough(self, tmp_path: Path) -> None:
        (tmp_path / "one.txt").write_text("the quick brown fox")
        settings = LearnedSettings.preset("quick", 3)
        material = dataclasses.replace(settings.material, texts=(str(tmp_path / "one.txt"),))
        with pytest.raises(ValueError, match="nothing for text on the report half"):
            measured_sequences(
                shared_bridge("llama"), dataclasses.replace(settings, material=material)
            )
