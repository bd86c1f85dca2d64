"""Settings of the copying experiment."""

from dataclasses import replace

import pytest

from lens_interventions.experiments import CopyingSettings
from lens_interventions.experiments.engine.json_values import from_values, to_values
from tests.support.small_copying import SETTINGS


@pytest.mark.parametrize("preset", ["quick", "full"])
@pytest.mark.parametrize("n_layers", [1, 3, 12, 30])
def test_presets_survive_json_and_fit_the_model(preset: str, n_layers: int) -> None:
    settings = CopyingSettings.preset(preset, n_layers)
    assert from_values(CopyingSettings, to_values(settings)) == settings
    assert all(0 <= layer < n_layers for layer in settings.layers)
    assert len(set(settings.layers)) == len(settings.layers) >= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": ()}, "at least one layer"),
        ({"documents": (0, 3)}, "documents must be two numbers"),
        ({"surprising": 5.0}, "surprising must be one of the edges"),
        ({"recent": 0}, "recent 1; got"),
    ],
)
def test_settings_that_cannot_be_run_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SETTINGS, **change)
