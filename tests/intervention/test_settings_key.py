"""A file of sums knows what it was measured for, in this process and in another."""

import functools
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import lens_interventions as li
from lens_interventions.intervention.settings_key import settings_key
from tests.support.small_training import random_texts, train
from tests.support.tiny import shared_bridge, tiny_bridge

ASKED = """
import json
from tests.intervention.test_settings_key import described
from lens_interventions.intervention.settings_key import settings_key
print(json.dumps(settings_key(described())))
"""


def every_second(tokens, nats):
    return torch.arange(len(nats)) % 2 == 0


def described():
    """One of each kind of value that a measurement may be asked for."""
    patch = li.NextTokenPatch(layer=1, strength=0.5, source="random", seed=3)
    weight = torch.arange(8.0).view(2, 2, 2)
    lens = li.AffineLens(weight=weight, bias=weight[0], settings={"texts": 2}, fingerprint="f")
    return {
        "patch": replace(patch, lens=lens, positions=(1, 2)),
        "scopes": ("all", every_second),
        "others": [None, 0.1, np.int64(3), np.arange(3), {"b", "a"}, json.loads],
    }


def test_another_process_has_the_same():
    shell = [sys.executable, "-c", ASKED]
    found = subprocess.run(shell, capture_output=True, text=True, check=True).stdout
    assert json.loads(found) == settings_key(described())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.zeros(2), torch.zeros(1, 2)),
        (torch.zeros(2), torch.zeros(2).double()),
        (torch.zeros(2), torch.tensor([0.0, 1.0])),
        (torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)),
        (every_second, described),
        (functools.partial(every_second, nats=1), functools.partial(every_second, nats=2)),
        ({"a": 1}, {"a": 2}),
        ((1, 2), (2, 1)),
        (described()["patch"], replace(described()["patch"], seed=4)),
    ],
)
def test_other_values_are_told_apart(one, other):
    assert settings_key(one) == settings_key(one)
    assert settings_key(one) != settings_key(other)


def test_what_has_no_name_is_refused(tmp_path):
    bridge = shared_bridge("llama")
    options = {"scopes": [lambda _tokens, nats: nats > 1], "progress": False}
    li.slope_map(bridge, random_texts(2), **options)
    with pytest.raises(ValueError, match=r"could not know .*<lambda> again: give a function"):
        li.slope_map(bridge, random_texts(2), out=tmp_path / "sums", **options)
    assert not (tmp_path / "sums").exists()


def test_sums_of_another_write_or_lens_are_not_taken_for_those_asked_for(tmp_path):
    bridge, texts = tiny_bridge("llama"), random_texts(2)
    one, other = (train(bridge, steps=2, seed=seed).write for seed in (0, 1))
    li.curvature(bridge, texts, [one.patch()], out=tmp_path / "bends", progress=False)
    with pytest.raises(ValueError, match="differs in patches"):
        li.curvature(bridge, texts, [other.patch()], out=tmp_path / "bends", progress=False)
    weight = torch.eye(bridge.cfg.d_model, dtype=torch.float64).repeat(bridge.cfg.n_layers, 1, 1)
    options = {"sources": ["guess"], "out": tmp_path / "slopes", "progress": False}
    lens = li.AffineLens(weight=weight, bias=weight[:, 0], settings={}, fingerprint=one.fingerprint)
    li.slope_map(bridge, texts, lens=lens, **options)
    with pytest.raises(ValueError, match="differs in lens"):
        li.slope_map(bridge, texts, lens=replace(lens, weight=2 * weight), **options)
