"""Settings that are refused before anything is measured."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from lens_interventions.experiments import run
from lens_interventions.experiments.design.contrasts import Resampling
from lens_interventions.experiments.engine.usable_settings import require_usable
from tests.support.small_run import example, small_bridge


@dataclass(frozen=True)
class Settings:
    texts: tuple[str, ...] = ("prose",)
    pairs: tuple[Resampling, ...] = (Resampling(), Resampling(seed=1))
    smallest_share: float = 0.1
    step: float = 0.5
    resampling: Resampling = field(default_factory=Resampling)
    n: int = 3
    layers: tuple[int, ...] | None = None
    pair: tuple[int, float] = (1, 0.5)
    kind: Literal["a", "b"] = "a"


@pytest.mark.parametrize(
    ("field", "value", "error", "message"),
    [
        ("texts", "prose", TypeError, r"texts must be a tuple, got 'prose': write \('prose',\)"),
        ("step", float("nan"), ValueError, "step must be finite, got nan"),
        ("step", torch.tensor(1), TypeError, r"step is tensor\(1\): JSON cannot hold a Tensor"),
        ("smallest_share", 0.0, ValueError, "smallest_share must be above 0, got 0"),
        ("texts", (3,), TypeError, r"texts must be of the type tuple\[str, ...\], got \(3,\)"),
        ("step", "a", TypeError, "step must be of the type float, got 'a'"),
        ("step", True, TypeError, "step must be of the type float, got True"),
        ("n", 3.0, TypeError, "n must be of the type int, got 3.0"),
        ("layers", (0.5,), TypeError, r"layers must be of the type tuple\[int, ...\] | None, got"),
        ("pair", (1, 2, 3), TypeError, r"pair must be of the type tuple\[int, float\], got"),
        ("kind", "c", TypeError, r"kind must be of the type .*Literal\['a', 'b'\], got 'c'"),
        ("resampling", 3, TypeError, "resampling must be of the type Resampling, got 3"),
    ],
)
def test_a_field_is_refused_by_its_name(
    field: str, value: Any, error: type[Exception], message: str
) -> None:
    require_usable(Settings())
    with pytest.raises(error, match=message):
        require_usable(replace(Settings(), **{field: value}))


def test_numbers_of_numpy_whole_numbers_and_lists_are_taken_for_what_they_are() -> None:
    values = {
        "step": 1,
        "n": np.int64(3),
        "layers": [0, np.int64(1)],
        "smallest_share": np.float64(0.5),
    }
    require_usable(replace(Settings(), **values))


def test_nothing_is_measured_or_written_with_settings_that_cannot_be_used(tmp_path: Path) -> None:
    settings = Settings(smallest_share=-1.0)
    with pytest.raises(ValueError, match="smallest_share must be above 0"):
        run(replace(example(), settings=settings), small_bridge, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("as_users_run")
def test_what_is_no_executor_is_refused_before_a_directory_is_made(tmp_path: Path) -> None:
    executor: Any = 3
    with pytest.raises(TypeError, match="executor must be of the class Executor, got int 3"):
        run(example(), small_bridge, out=tmp_path / "run", executor=executor)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [{"level": 95}, {"n_resamples": 1}, {"seed": -1}])
def test_resampling_is_checked_where_it_is_made(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="level must be between 0 and 1, n_resamples at least 2"):
        Resampling(**options)
