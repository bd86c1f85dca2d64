"""Which arms the stages of the copying experiment ask for."""

import importlib
from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path

import pandas as pd
import pytest

from lens_interventions import AffineLens
from lens_interventions.experiments import Analysis, RunDirectoryError, Unit
from lens_interventions.experiments.copying.questions import QUESTIONS
from lens_interventions.experiments.copying.stages import compare_controls, select
from lens_interventions.experiments.design.conditions import Arm
from lens_interventions.experiments.design.sequences import SELECTION
from lens_interventions.experiments.design.totals import ROW_COLUMNS
from lens_interventions.fitting import default_lens
from lens_interventions.model.user_cache import CACHE_VARIABLE
from tests.support.small_copying import SETTINGS
from tests.support.small_loops import roomy_bridge


def arms_by_table(units: Sequence[Unit]) -> dict[str, set[Arm]]:
    return {unit.table: {Arm(**columns) for columns in unit.parameters["arms"]} for unit in units}


def rows_where_one_is_best(arms: dict[str, set[Arm]], best: Arm) -> dict[str, pd.DataFrame]:
    """Two texts for each arm and question, and one arm ahead of the others."""
    rows: dict[str, list[tuple]] = {table: [] for table in arms}
    for question in QUESTIONS:
        measure, worse = question.measure, 1.0 if question.measure.lower_is_better else -1.0
        tags = " ".join(measure.tags)
        for arm in sorted(arms[question.table], key=str):
            total = 0.0 if arm == best else worse
            rows[question.table] += [
                (SELECTION, text, str(text), "", *astuple(arm), measure.name, tags, total, 1)
                for text in (0, 1)
            ]
    return {table: pd.DataFrame(kept, columns=ROW_COLUMNS) for table, kept in rows.items()}


def test_a_refined_temperature_that_is_a_coarse_one_is_not_measured_again() -> None:
    """0.8 times 1.5 is 1.2, and an arm that is measured twice has twice the counts."""
    bridge, settings = roomy_bridge(), replace(SETTINGS, temperatures=(1.2, 1.5))
    coarse = arms_by_table(select(bridge, settings, {}))
    rows = rows_where_one_is_best(coarse, Arm.tempered(1.5))
    controls = arms_by_table(compare_controls(bridge, settings, rows))
    assert set(controls) == {question.table for question in QUESTIONS}
    for table, arms in controls.items():
        assert not arms & coarse[table]
        finer = {arm.strength for arm in arms if arm.source == "temperature"}
        assert finer == {0.9, 1.05, 1.35, 1.425, 1.575, 1.725, 1.95, 2.4}


def test_a_run_is_not_continued_with_another_default_lens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(default_lens, "_TEXTS", 16)
    monkeypatch.setattr(default_lens, "_LENGTH", 12)
    # The package; the attribute of this name is the function that runs the experiment.
    experiment = importlib.import_module("lens_interventions.experiments.copying")
    # Nothing has to be measured to compare what two runs read.
    plan = replace(
        experiment.PLAN,
        stages=lambda *_: {},
        analyse=lambda *_: Analysis({"none": pd.DataFrame({"n": [0]})}, (), lambda _: {}),
    )
    monkeypatch.setattr(experiment, "PLAN", plan)
    settings = replace(SETTINGS, forms=("fitted lens",))
    for _ in range(2):
        experiment.copying(roomy_bridge(), settings=settings, out=tmp_path / "run")
    (file,) = (tmp_path / "cache").iterdir()
    lens = AffineLens.load(file)
    replace(lens, bias=lens.bias + 1).save(file)
    with pytest.raises(RunDirectoryError, match=r"files\.default lens: .+ here, .+ there"):
        experiment.copying(roomy_bridge(), settings=settings, out=tmp_path / "run")
