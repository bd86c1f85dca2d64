"""Settings as JSON and back."""

from pathlib import Path

import pytest

from lens_interventions.experiments import load_result, run
from lens_interventions.experiments.engine.json_values import from_values, to_values
from tests.support.small_run import Settings, example, small_bridge


def test_settings_come_back_from_a_finished_run(tmp_path: Path) -> None:
    settings = Settings(starts=(7,), tags=(("é", 2), ("b", 3)))
    run(example(settings), small_bridge, out=tmp_path)
    assert from_values(Settings, load_result(tmp_path).settings) == settings


def test_settings_with_another_field_are_refused() -> None:
    values = to_values(Settings())
    with pytest.raises(ValueError, match=r"missing \['gate'\], unknown \['gait'\]"):
        from_values(Settings, {"gait" if k == "gate" else k: v for k, v in values.items()})
