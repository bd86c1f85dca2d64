"""The fields of a patch: what makes no sense is refused, and what was given cannot be changed."""

import dataclasses

import jaxtyping
import numpy as np
import pytest

from lens_interventions.intervention.patch import NextTokenPatch


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layer": -1}, "block numbers from 0 up"),
        ({"layer": ()}, "block numbers from 0 up"),
        ({"layer": (1, 1)}, "names a block twice"),
        ({"layer": 1.5}, "block numbers from 0 up"),
        ({"layer": True}, "block numbers from 0 up"),
        ({"strength": float("nan")}, "finite"),
        ({"mode": "replace"}, "'interpolate', 'add', 'correct' or a function; got 'replace'"),
        ({"source": "next"}, "'true', 'random', .* or a function; got 'next'"),
        ({"scale": "unit"}, "'raw', 'norm', 'deviation'; got 'unit'"),
        ({"embedding": "W_V"}, "'W_E', 'W_E_centred', 'W_U', 'lens'; got 'W_V'"),
        ({"positions": "some"}, "'all', 'generated'; got 'some'"),
        ({"positions": [2, -1]}, r"got \[-1\]"),
        ({"positions": 3}, "a list of numbers from the text's first token, 0 up; got 3"),
        ({"positions": None}, "got None"),
        ({"window": 0}, "positions, got 0"),
        ({"gate": float("nan")}, "nats"),
        ({"gate": 6.0, "gate_on": "model"}, "'lens', 'output'; got 'model'"),
        ({"gate_on": "output"}, "give a gate"),
    ],
)
def test_what_makes_no_sense_is_refused(monkeypatch, fields, message):
    # Users run without the type checks of the test session, which would speak first.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        NextTokenPatch(**{"layer": 1, "strength": 0.1} | fields)


def test_a_patch_cannot_be_changed_and_says_what_it_is():
    patch = NextTokenPatch(layer=[2, 0], strength=0.1, positions={3, 1})
    assert (patch.layer, patch.positions) == ((0, 2), (1, 3))
    assert "layer=(0, 2), strength=0.1, mode='interpolate'" in repr(patch)
    assert hash(patch) == hash(dataclasses.replace(patch))
    with pytest.raises(dataclasses.FrozenInstanceError):
        patch.strength = 0.2


def test_numbers_of_numpy_are_numbers(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    patch = NextTokenPatch(layer=np.int64(1), strength=0.1, positions=np.array([4, 2]))
    assert patch == NextTokenPatch(layer=1, strength=0.1, positions=(2, 4))
    assert dataclasses.replace(patch, positions=map(int, "42")) == patch  # read only once
    assert NextTokenPatch.from_json(patch.to_json()) == patch
    plain = {"strength": 0.5, "window": 3, "gate": 2.0, "seed": 4}
    of_numpy = NextTokenPatch(
        layer=1,
        strength=np.float32(0.5),
        window=np.int64(3),
        gate=np.float64(2),
        seed=np.int64(4),
    )
    # Runs are continued only under the same description.
    assert str(of_numpy) == str(NextTokenPatch(layer=1, **plain))
    assert NextTokenPatch.from_json(of_numpy.to_json()) == of_numpy
