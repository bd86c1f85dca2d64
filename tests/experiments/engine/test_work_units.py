"""Units: their names, their parameters, and what tells one from another."""

import importlib.util
import inspect
import pkgutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from lens_interventions import experiments
from lens_interventions.experiments import Unit, unit_kind
from lens_interventions.experiments.engine import work_units
from tests.support.small_run import mean_logits

MODULE = """
import pandas as pd
from lens_interventions.experiments import unit_kind

@unit_kind("lengths")
def with_a_kind(bridge, start):
    return pd.DataFrame({"start": [start]})

def without(bridge, start):
    return pd.DataFrame({"start": [start]})
"""


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "a b"])
def test_a_unit_name_is_a_file_name(name: str) -> None:
    with pytest.raises(ValueError, match="must consist of letters, digits"):
        Unit("table", name, mean_logits, {})


def test_parameters_are_json() -> None:
    with pytest.raises(TypeError, match=r"parameter '.*' of .* is no JSON value"):
        Unit("table", "name", mean_logits, {"start": torch.ones(1)})


@pytest.fixture
def moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The same module at two places, as before and after a move."""
    modules = []
    for name in ("old_place", "new_place"):
        file = tmp_path / f"{name}.py"
        file.write_text(MODULE)
        spec = importlib.util.spec_from_file_location(name, file)
        module = importlib.util.module_from_spec(spec)
        with monkeypatch.context() as process:
            process.setattr(work_units, "_KINDS", {})  # each is imported by another process
            spec.loader.exec_module(module)
        modules.append(module)
    return modules


@pytest.mark.parametrize("function", ["with_a_kind", "without"])
def test_a_unit_is_the_same_wherever_its_function_lies(moved: list, function: str) -> None:
    old, new = (Unit("t", "n", getattr(module, function), {"start": 1}) for module in moved)
    assert old.measure.__module__ != new.measure.__module__
    assert old.digest == new.digest


def test_units_that_measure_different_things_differ(moved: list) -> None:
    module = moved[0]
    different = [
        Unit("t", "n", module.with_a_kind, {"start": 1}),
        Unit("t", "n", module.without, {"start": 1}),
        Unit("t", "n", module.with_a_kind, {"start": 2}),
        Unit("t", "m", module.with_a_kind, {"start": 1}),
        Unit("s", "n", module.with_a_kind, {"start": 1}),
    ]
    assert len({unit.digest for unit in different}) == len(different)


def test_a_kind_belongs_to_one_function() -> None:
    def another() -> pd.DataFrame:
        return pd.DataFrame()

    with pytest.raises(ValueError, match=r"'mean logits' is already the unit kind of"):
        unit_kind("mean logits")(another)
    assert unit_kind("mean logits")(mean_logits) is mean_logits  # a module that is read again


def measurements() -> list[Callable]:
    """The functions of the experiments that make rows from a bridge."""
    found = []
    for module in pkgutil.walk_packages(experiments.__path__, f"{experiments.__name__}."):
        for function in vars(importlib.import_module(module.name)).values():
            if inspect.isfunction(function) and function.__module__ == module.name:
                signature = inspect.signature(function)
                takes_bridge = next(iter(signature.parameters), None) == "bridge"
                if takes_bridge and signature.return_annotation is pd.DataFrame:
                    found.append(function)
    return found


def test_every_measurement_of_the_library_has_a_kind() -> None:
    found = measurements()
    assert len(found) > 15
    assert [function for function in found if not hasattr(function, "unit_kind")] == []
