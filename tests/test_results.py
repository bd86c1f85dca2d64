"""What all results have in common: a short line of text, and an identity of their own."""

import copy
import dataclasses
import importlib
import inspect
import pkgutil

import pytest

import lens_interventions as li
from tests.support.tiny import shared_bridge

BRIDGE = shared_bridge("llama")
TEXTS = ["the people say that the time they mean", "the quick brown fox jumps over the lazy dog"]
ARRAYS = ("Tensor", "ndarray", "DataFrame", "Float[", "Int[", "Bool[")

RESULTS = {
    "trajectory": lambda: li.logit_lens(BRIDGE, TEXTS),
    "commitment": lambda: li.logit_lens(BRIDGE, TEXTS).commitment(),
    "components": lambda: li.component_logits(BRIDGE, TEXTS),
    "aggregate": lambda: li.lens_over(BRIDGE, TEXTS, progress=False),
    "generation": lambda: li.generate(BRIDGE, TEXTS, max_new_tokens=2),
    "slopes": lambda: li.slope_map(BRIDGE, TEXTS, progress=False),
    "basis": lambda: li.embedding_basis(BRIDGE),
    "unlikely": lambda: li.unlikely_components(BRIDGE, TEXTS, progress=False),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_is_a_short_line_and_equals_only_itself(name):
    one = RESULTS[name]()
    other = copy.deepcopy(one)
    assert len(repr(one)) < 900
    assert "tensor(" not in repr(one)
    assert "array(" not in repr(one)
    assert one == one
    assert one != other
    assert len({one, other}) == 2


def public_results():
    """Every public dataclass with arrays or tables among its fields."""
    modules = [
        importlib.import_module(f"lens_interventions.{room}")
        for room in ("lens", "fitting", "intervention", "search")
    ]
    for room in modules:
        for found in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            for name, kind in vars(importlib.import_module(found.name)).items():
                if hasattr(li, name) and inspect.isclass(kind) and dataclasses.is_dataclass(kind):
                    yield kind


@pytest.mark.parametrize("kind", sorted(set(public_results()), key=lambda kind: kind.__name__))
def test_what_holds_arrays_is_not_compared_by_them(kind):
    """Arrays compare to arrays, which are neither true nor false."""
    types = [str(field.type) for field in dataclasses.fields(kind)]
    if any(mark in each for each in types for mark in ARRAYS if "Callable" not in each):
        assert kind.__eq__ is object.__eq__
        assert kind.__hash__ is object.__hash__
