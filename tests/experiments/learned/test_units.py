"""Learned writes: what a unit measures, the texts of both halves, settings."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import lens_interventions as li
from lens_interventions import materials
from lens_interventions.experiments import LearnedSettings
from lens_interventions.experiments.design.conditions import NO_PATCH
from lens_interventions.experiments.design.sequences import TokenSequence
from lens_interventions.experiments.engine.json_values import from_values, to_values
from lens_interventions.experiments.learned.evaluation import NO_SEED, measure_writes, over_seeds
from lens_interventions.experiments.learned.splits import measured_sequences, training_texts
from lens_interventions.experiments.learned.writes import (
    Training,
    read_write,
    write_bytes,
    write_text,
)
from lens_interventions.materials.corpora import python_code
from tests.intervention.test_learned_write import random_write
from tests.support.planted_learned import SETTINGS
from tests.support.small_training import assert_same_bits
from tests.support.tiny import shared_bridge


class TestUnits:
    def test_a_write_comes_back_from_its_bytes(self) -> None:
        write = random_write(shared_bridge("llama"), layers=(0, 2), gate=True)
        back = read_write(write_bytes(write))
        assert back.settings == write.settings
        for name in ("down", "up", "bias", "gate_weight", "gate_bias"):
            torch.testing.assert_close(
                getattr(back, name), getattr(write, name).float(), rtol=0, atol=0
            )
        assert write_bytes(write) == write_bytes(write)
        assert_same_bits(read_write(write_bytes(back)), back)

    @pytest.mark.parametrize("rank", [None, 8])
    def test_a_training_comes_back_from_its_columns(self, rank: int | None) -> None:
        training = Training("guess", 3, rank, 40, 2)
        assert Training.from_columns(training.columns()) == training
        assert training.own_arm != dataclasses.replace(training, seed=1).own_arm
        assert training.arm == dataclasses.replace(training, seed=1).arm

    def test_rows_are_of_each_write_and_averaged_over_seeds(self) -> None:
        bridge = shared_bridge("llama")
        texts = [TokenSequence(0, "report", "c", "t", (0, 50, 61, 52, 50, 61, 52), 3)]
        trainings = [Training("random", 1, 5, 1, seed) for seed in (4, 9)]
        writes = [random_write(bridge, source="random", trained_with="random") for _ in trainings]
        parameters = {
            t.name: {**t.columns(), "write": write_text(write_bytes(w))}
            for t, w in zip(trainings, writes, strict=True)
        }
        with torch.no_grad():
            rows = measure_writes(
                bridge, "induction", parameters, sequences=[text.values() for text in texts]
            )
            tokens = torch.tensor([texts[0].tokens])
            expected = [
                -float(li.teacher_forced_log_probs(bridge, tokens, patch)[0, -2:].sum())
                for patch in (
                    None,
                    *(
                        read_write(write_bytes(w)).patch(seed=t.seed)
                        for t, w in zip(trainings, writes, strict=True)
                    ),
                )
            ]
        losses = rows[rows["measure"] == "loss"]
        assert losses["seed"].tolist() == [NO_SEED, 4, 9]
        np.testing.assert_allclose(losses["total"], expected, rtol=0, atol=1e-9)
        assert expected[1] != pytest.approx(expected[2], abs=1e-3)
        means = over_seeds(losses)
        assert means["source"].tolist() == ["none", "random"]
        assert means["total"].iloc[1] == pytest.approx(np.mean(expected[1:]), abs=1e-9)
        assert means["count"].tolist() == [2, 2]
        assert NO_PATCH.mode in means["mode"].tolist()


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
        text_of = {document.title: document.text for document in materials.python_reference()}
        others = {*text_of.values()} - {text_of[title] for title in titles}
        assert len({*map(tuple, texts)}) == len(others)
        beginnings = {tuple(text[:40]) for text in texts}
        assert beginnings.isdisjoint({t.tokens[:40] for t in kept})
        assert all(text[0] == bridge.tokenizer.bos_token_id for text in texts)
        assert {t.tags for t in measured["text"]} == {"prose", "python_reference", "python_code"}
        assert {t.half for t in measured["induction"]} == {"selection", "report"}

    def test_nor_is_one_that_is_there_twice(self, tmp_path: Path) -> None:
        bridge, corpus = shared_bridge("llama"), tmp_path / "mine.txt"
        corpus.write_text("\n\n".join(f"the time of fox {n}" for n in "abcab"))
        settings = dataclasses.replace(LearnedSettings.preset("quick", 3), corpus=str(corpus))
        for left, title in ((3, "0"), (4, "2")):
            measured = TokenSequence(0, "report", f"{corpus}: {title}", "", (1, 2, 3), 0)
            assert len(training_texts(bridge, settings, [measured])) == left

    def test_code_begins_with_a_definition(self) -> None:
        documents = python_code()
        assert len(documents) > 100
        assert len({document.title for document in documents}) == len(documents)
        assert all(document.text.startswith(("def ", "class ")) for document in documents)
        assert max(len(document.text) for document in documents) == 8192
        assert "dataclasses" in {document.title for document in documents}

    def test_one_document_is_not_enough(self, tmp_path: Path) -> None:
        (tmp_path / "one.txt").write_text("the quick brown fox")
        settings = LearnedSettings.preset("quick", 3)
        material = dataclasses.replace(settings.material, texts=(str(tmp_path / "one.txt"),))
        with pytest.raises(ValueError, match="nothing for text on the report half"):
            measured_sequences(
                shared_bridge("llama"), dataclasses.replace(settings, material=material)
            )


class TestSettings:
    @pytest.mark.parametrize("preset", ["quick", "full"])
    @pytest.mark.parametrize("n_layers", [1, 3, 12, 30])
    def test_presets_survive_json_and_fit_the_model(self, preset: str, n_layers: int) -> None:
        settings = LearnedSettings.preset(preset, n_layers)
        assert from_values(LearnedSettings, to_values(settings)) == settings
        assert all(0 <= i < n_layers for i in (settings.layer, *settings.sweep_layers))
        assert settings.options.patience is None
        assert bool(settings.sweep_layers) == (preset == "full")

    def test_the_default_model_is_patched_at_22(self) -> None:
        settings = LearnedSettings.preset("full", 30)
        assert (settings.layer, settings.seeds, settings.steps) == (22, (0, 1, 2), 150)
        assert settings.sweep_layers == (12, 18, 22, 25, 28)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"seeds": ()}, "seeds must be one or more"),
            ({"seeds": (1, 1)}, "seeds must be one or more different"),
            ({"options": li.TrainingOptions()}, "must be None"),
            ({"sweep_controls": ("true",)}, "sweep_controls must be some of"),
            ({"sweep_layers": ()}, "give those too"),
            ({"sweep_steps": 20}, "sweep_steps and steps are both 20"),
            ({"directions": 0}, "directions must be at least 1"),
        ],
    )
    def test_settings_that_cannot_be_run_are_refused(self, change: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(SETTINGS, **change)
