"""Settings of the experiment with learned writes: what fits a model, and what cannot be run."""

import dataclasses
from dataclasses import replace

import pytest
from transformer_lens.model_bridge import TransformerBridge

import lens_interventions as li
from lens_interventions.experiments import LearnedSettings, learned
from lens_interventions.experiments.engine.json_values import from_values, to_values
from lens_interventions.experiments.learned import stages
from tests.support.planted_learned import SETTINGS
from tests.support.tiny import shared_bridge


def narrow() -> TransformerBridge:
    """Of width 32."""
    return shared_bridge("llama")


@pytest.mark.parametrize(
    ("d_model", "rank", "swept"),
    [(2, 2, ()), (32, 32, (4, 16)), (128, 64, (4, 16, 64)), (576, 64, (4, 16, 64, 256))],
)
def test_presets_have_ranks_that_fit_the_width(
    d_model: int, rank: int, swept: tuple[int, ...]
) -> None:
    full = LearnedSettings.preset("full", 12, d_model)
    assert (full.rank, full.sweep_ranks) == (rank, swept)
    full.require_fit(12, d_model)
    quick = LearnedSettings.preset("quick", 12, d_model)
    assert (quick.rank, quick.sweep_ranks) == (min(rank, 16), ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": 3}, "blocks 0 to 2, the patch asks for 3"),
        ({"sweep_layers": (0, -1)}, "the patch asks for -1"),
        ({"rank": 33}, "no map of rank 33: ranks go from 1 to the model's width, 32"),
        ({"sweep_ranks": (4, 256)}, "no map of rank 256"),
        ({"rank": 0}, "no map of rank 0"),
        (
            {"sampled_tokens": 120},
            r"sampled_tokens makes texts of \d+ tokens, .* 128",
        ),
    ],
)
def test_what_a_model_has_not_is_refused_before_anything_is_trained(
    change: dict, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "train", lambda *_: pytest.fail("a unit was planned"))
    settings = replace(LearnedSettings.preset("full", 3, 32), **change)
    with pytest.raises(ValueError, match=message):
        learned(narrow, settings=settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampled_prompts": 1}, "sampled_prompts must be at least 2, got 1"),
        ({"sampled_prompts": 73}, "sampled_prompts must be at most 72, got 73"),
        ({"sampled_copies": 0}, "sampled_copies must be at least 1"),
        ({"sampled_tokens": 15}, "sampled_tokens must be at least 16"),
    ],
)
def test_going_on_needs_prompts_in_both_halves(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(LearnedSettings(layer=1), **change)


@pytest.mark.parametrize("preset", ["quick", "full"])
@pytest.mark.parametrize("n_layers", [1, 3, 12, 30])
def test_presets_survive_json_and_fit_the_model(preset: str, n_layers: int) -> None:
    settings = LearnedSettings.preset(preset, n_layers)
    assert from_values(LearnedSettings, to_values(settings)) == settings
    assert all(0 <= i < n_layers for i in (settings.layer, *settings.sweep_layers))
    assert settings.options.patience is None
    assert bool(settings.sweep_layers) == (preset == "full")


def test_the_default_model_is_patched_at_22() -> None:
    settings = LearnedSettings.preset("full", 30)
    assert (settings.layer, settings.seeds, settings.steps) == (22, (0, 1, 2), 150)
    assert settings.sweep_layers == (12, 18, 22, 25, 28)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": ()}, "seeds must be one or more"),
        ({"seeds": (1, 1)}, "seeds must be one or more different"),
        ({"options": li.TrainingOptions()}, "must be None"),
        (
            {"options": li.TrainingOptions(patience=None, write_penalty=0.5)},
            "no penalties, got write_penalty=0.5 and change_penalty=0.0",
        ),
        ({"sweep_controls": ("true",)}, "sweep_controls must be some of"),
        ({"sweep_layers": ()}, "give those too"),
        ({"sweep_steps": 20}, "sweep_steps and steps are both 20"),
        ({"directions": 0}, "directions must be at least 1"),
        # Rows without a patch have -1 in the column of the seeds.
        ({"seeds": (-1, 0)}, "different numbers from 0 on, got"),
        ({"sweep_seed": -1}, "sweep_seed must be at least 0"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"sweep_steps": 0}, "sweep_steps must be at least 1"),
        ({"options": li.TrainingOptions(patience=None, bias=False)}, "'zero' writes only a bias"),
        ({"material": replace(SETTINGS.material, texts=("prose", "loops"))}, r"write \./loops"),
    ],
)
def test_settings_that_cannot_be_run_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SETTINGS, **change)
