"""Settings of the copying experiment."""

from dataclasses import replace

import pytest

from lens_interventions.experiments import CopyingSettings
from lens_interventions.experiments.copying.stages import map_slopes
from lens_interventions.experiments.engine.json_values import from_values, to_values
from tests.support.small_copying import SETTINGS
from tests.support.tiny import shared_bridge


@pytest.mark.parametrize("preset", ["quick", "full"])
@pytest.mark.parametrize("n_layers", [1, 3, 12, 30])
def test_presets_survive_json_and_fit_the_model(preset: str, n_layers: int) -> None:
    settings = CopyingSettings.preset(preset, n_layers)
    assert from_values(CopyingSettings, to_values(settings)) == settings
    layers = settings.layers
    # A full run chooses its layers by their slopes.
    assert (layers is None) == (preset == "full")
    assert layers is None or (
        set(layers) <= set(range(n_layers)) and len(set(layers)) == len(layers)
    )


@pytest.mark.parametrize("layer", [-1, 3])
def test_layers_that_the_model_does_not_have_are_refused(layer: int) -> None:
    """A negative one would not be patched, and look like a patch without effect."""
    with pytest.raises(ValueError, match=f"blocks 0 to 2, the patch asks for {layer}"):
        map_slopes(shared_bridge("llama"), replace(SETTINGS, layers=(layer,)), {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": ()}, "at least one layer"),
        ({"temperatures": ()}, "one temperature or more, each above 0"),
        ({"temperatures": (-1.0,)}, "one temperature or more, each above 0"),
        ({"strengths": (0.3, 0.3)}, "strengths must be different values"),
        ({"layers": (1, 1)}, "layers must be different values"),
        ({"modes": ("foo",)}, "modes must be some of interpolate, add, correct"),
        ({"texts": ("prose", "prose")}, "texts must be different values"),
        ({"texts": ("my text.txt", "prose", "my_text.txt")}, "would be counted together"),
        ({"surprisal_edges": (8.0, 6.0)}, "surprisal_edges must be increasing"),
        ({"forms": ("sideways",)}, "forms must be some of"),
        ({"temperatures": (0.9, 1.0)}, "temperatures must not include 1"),
        ({"documents": (0, 3)}, "documents must be two numbers"),
        ({"surprising": 4.0}, r"surprising must be 6 .+; got 4\.0: leave it out"),
        ({"surprisal_edges": (1.0, 4.0)}, "surprising must be one of the edges"),
        ({"recent": 0}, "recent must be at least 1, got 0"),
    ],
)
def test_settings_that_cannot_be_run_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SETTINGS, **change)
