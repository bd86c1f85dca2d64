"""The settings of committed runs are of today's fields, so that a run can be analysed again."""

import json
from pathlib import Path

import pytest

from lens_interventions import experiments
from lens_interventions.experiments.engine.json_values import from_values, to_values
from lens_interventions.experiments.engine.usable_settings import require_usable

RESULTS = Path(__file__).parents[2] / "results"
RUNS = sorted(str(file.parent.relative_to(RESULTS)) for file in RESULTS.rglob("settings.json"))


@pytest.mark.parametrize("run", RUNS)
def test_the_settings_of_a_committed_run_can_be_run_today(run: str) -> None:
    header = json.loads((RESULTS / run / "settings.json").read_text())
    name = header["experiment"].replace("_", " ").title().replace(" ", "")
    settings = from_values(getattr(experiments, f"{name}Settings"), header["settings"])
    require_usable(settings)
    assert to_values(settings) == header["settings"]
