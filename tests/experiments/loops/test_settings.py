"""Settings of the loops experiment."""

from dataclasses import replace

import pytest

from lens_interventions.experiments.loops import LoopsSettings
from lens_interventions.experiments.loops.stages import search
from tests.support.small_loops import SETTINGS, roomy_bridge
from tests.support.tiny import shared_bridge


def test_presets_fit_any_depth() -> None:
    for n_layers in (2, 3, 30):
        for name in ("quick", "full"):
            layers = LoopsSettings.preset(name, n_layers).layers
            assert layers
            assert all(0 <= layer < n_layers for layer in layers)


def test_only_full_contrasts_layers_with_and_without_a_penalty() -> None:
    quick, full = (LoopsSettings.preset(name, 30).rules() for name in ("quick", "full"))
    assert not any(rule.layer_contrast for rule in quick)
    found = [str(rule) for rule in full if rule.layer_contrast]
    lower = "DoLa against lower layers"
    assert found == [lower, f"{lower}, repetition penalty 1.2"]


@pytest.mark.parametrize("layer", [-1, 3])
def test_layers_that_the_model_does_not_have_are_refused(layer: int) -> None:
    """A negative one would not be patched, and look like a patch without effect."""
    with pytest.raises(ValueError, match=f"blocks 0 to 2, the patch asks for {layer}"):
        search(shared_bridge("llama"), replace(SETTINGS, layers=(layer,)), {})


@pytest.mark.parametrize("longer", [{"new_tokens": 1990}, {"rounds": 200}, {"search_tokens": 2040}])
def test_texts_longer_than_the_model_reads_are_refused_before_anything_is_measured(
    longer: dict[str, int],
) -> None:
    """Cut into pieces, a passage would not be said for the k-th time."""
    (name,) = longer
    with pytest.raises(ValueError, match=rf"{name} makes texts of \d+ tokens, .* reads 2048"):
        search(roomy_bridge(), replace(SETTINGS, **longer), {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": ()}, "at least one layer"),
        ({"strengths": ()}, "at least one layer, strength"),
        ({"prompts": 1}, "prompts must be at least 2, got 1"),
        ({"passages": 1}, "passages must be at least 2"),
        ({"documents": 1}, "documents must be at least 2"),
        ({"rounds": 1}, "rounds must be at least 2"),
        ({"search_prompts": 0}, "search_prompts must be at least 1"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"shown": 0}, "shown must be at least 1"),
        ({"penalties": (1.0,)}, "the same, greedy"),
        ({"penalties": (1.2, 1.2)}, "the same, repetition penalty 1.2"),
        ({"top_p": (1.0,), "temperatures": (1.0,)}, "the same, temperature 1"),
        ({"temperatures": (0.7, 0.7)}, "the same, temperature 0.7"),
        ({"layer_contrasts": ("SLED", "SLED"), "contrast_penalties": (1.0,)}, "the same, SLED"),
        ({"layer_contrasts": ("none",)}, "unknown layer contrast 'none'"),
        ({"strengths": (0.3, 0.3)}, "strengths must be different values"),
        ({"modes": ("add", "foo")}, "modes must be some of interpolate, add, correct"),
        ({"new_tokens": 15}, "new_tokens must be at least 16, got 15"),
        ({"temperatures": (0.0,)}, "must be above 0, got 0.0 and 1.0"),
        ({"penalties": (0.0,)}, "must be above 0, got 1.0 and 0.0"),
        ({"min_p": (2.0,)}, "shares from 0 to 1, got 1.0 and 2.0"),
    ],
)
def test_settings_that_cannot_be_run_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SETTINGS, **change)
