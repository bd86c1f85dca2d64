"""Settings as JSON and back."""

from pathlib import Path

import numpy as np
import pytest

from lens_interventions.experiments import load_result, run
from lens_interventions.experiments.engine.json_values import (
    differences,
    digest,
    from_values,
    to_values,
)
from tests.support.small_run import Settings, example, small_bridge


def test_settings_come_back_from_a_finished_run(tmp_path: Path) -> None:
    settings = Settings(starts=(7,), tags=(("é", 2), ("b", 3)))
    run(example(settings), small_bridge, out=tmp_path)
    assert from_values(Settings, load_result(tmp_path).settings) == settings


def test_settings_with_another_field_are_refused() -> None:
    values = to_values(Settings())
    with pytest.raises(ValueError, match=r"missing \['gate'\], unknown \['gait'\]"):
        from_values(Settings, {"gait" if k == "gate" else k: v for k, v in values.items()})


def test_numbers_of_numpy_are_plain_numbers() -> None:
    assert to_values(Settings(starts=(np.int64(7),))) == to_values(Settings(starts=(7,)))


@pytest.mark.parametrize(
    ("here", "there", "said"),
    [
        ({"a": 1}, {"a": 1.0}, ["a: 1 here, 1.0 there"]),
        ({"a": {"b": True}}, {"a": {"b": 1}}, ["a.b: true here, 1 there"]),
        ({"a": None}, {}, ["a: null here, nothing there"]),
        ({"a": [1, {"b": 2, "c": 3}]}, {"a": [1, {"c": 3, "b": 2}]}, []),
        ({"a": float("nan")}, {"a": float("nan")}, []),
    ],
)
def test_values_differ_where_their_digests_do(here: dict, there: dict, said: list[str]) -> None:
    assert differences(here, there) == said
    assert (digest(here) == digest(there)) == (not said)
