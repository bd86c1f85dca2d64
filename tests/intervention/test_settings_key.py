"""A file of sums knows what it was measured for, in this process and in another."""

import enum
import functools
import json
import logging
import math
import os
import re
import subprocess
import sys
from dataclasses import replace

import beartype
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


LEAST = {"nats": torch.tensor(1.0)}


def above_least(tokens, nats, *, also=0.0):
    return torch.stack([row[..., :] > LEAST["nats"] + also for row in nats])


class Scaled(torch.nn.Module):
    """A module that holds a number and a buffer that its state does not have."""

    def __init__(self, scale=1.0, shift=0.0):
        super().__init__()
        self.scale = scale
        self.register_buffer("shift", torch.tensor(shift), persistent=False)

    def forward(self, x):
        return self.scale * x + self.shift


class Doubled(Scaled):
    def forward(self, x):
        return 2 * x


class Called:
    """An object whose class is defined again by `edited`."""

    def __call__(self, x):
        return x


def edited():
    """An object of a class with the name of `Called` that does something else."""

    def call(_self, x):
        return 2 * x

    return type("Called", (), {"__call__": call, "__module__": __name__})()


def described():
    """One of each kind of value that a measurement may be asked for."""
    patch = li.NextTokenPatch(layer=1, strength=0.5, source="random", seed=3)
    weight = torch.arange(8.0).view(2, 2, 2)
    lens = li.AffineLens(weight=weight, bias=weight[0], settings={"texts": 2}, fingerprint="f")
    return {
        "patch": replace(patch, lens=lens, positions=(1, 2)),
        "scopes": ("all", every_second, above_least),
        "others": [None, 0.1, np.int64(3), np.arange(3), {"b", "a"}, math.floor, torch.float16],
    }


def test_another_process_has_the_same():
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ASKED],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        for seed in "12"
    ]
    one, other = (process.communicate()[0] for process in processes)
    assert one == other
    assert len(json.loads(one)) == len(described())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.zeros(2), torch.zeros(1, 2)),
        (torch.zeros(2), torch.zeros(2).double()),
        (torch.zeros(2), torch.tensor([0.0, 1.0])),
        (torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)),
        (every_second, described),
        (functools.partial(every_second, nats=1), functools.partial(every_second, nats=2)),
        (Scaled(1.0), Scaled(2.0)),
        (Scaled(shift=1.0), Scaled(shift=2.0)),
        (torch.nn.Sequential(Scaled(1.0)), torch.nn.Sequential(Scaled(2.0))),
        (Scaled(), Doubled()),
        (torch.nn.Dropout(), torch.nn.Dropout().eval()),
        (shared_bridge("llama"), shared_bridge("gpt2")),
        (Called(), edited()),
        ({"a": 1}, {"a": 2}),
        ((1, 2), (2, 1)),
        (described()["patch"], replace(described()["patch"], seed=4)),
    ],
)
def test_other_values_are_told_apart(one, other):
    assert settings_key(one) == settings_key(one)
    assert settings_key(one) != settings_key(other)


class Kind(enum.Enum):
    ONE = 1


@pytest.mark.parametrize("value", [Called(), Scaled()])
def test_what_a_class_holds_for_its_objects_counts(value, monkeypatch):
    before = settings_key(value)
    monkeypatch.setattr(type(value), "least", torch.tensor(2.0), raising=False)
    held = settings_key(value)
    monkeypatch.setattr(type(value), "least", torch.tensor(3.0))
    assert before != held != settings_key(value) != before


def test_what_cannot_be_called_has_no_call():
    assert len(settings_key(Kind.ONE)) == 2


def test_a_module_may_hold_what_computes_nothing():
    """A generator, a function, itself: none of them is a number of the module."""
    one, other = (Scaled() for _ in range(2))
    other.generator, other.chosen, other.whole = torch.Generator(), lambda x: x, [other]
    assert settings_key(one) == settings_key(other)
    assert settings_key(torch.nn.LSTM(2, 2)) != settings_key(torch.nn.LSTM(2, 2))


def test_a_module_with_a_hook_could_do_anything():
    module = Scaled()
    module.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="a Scaled with hooks on it"):
        settings_key(module)


def at_least(cut):
    """A decorator that holds a value, as those of users do."""

    def decorate(scope):
        @functools.wraps(scope)
        def wrapped(tokens, nats):
            return (nats > cut) & scope(tokens, nats)

        return wrapped

    return decorate


def decorated(cut):
    """A function of one name and one code, whatever its decorator holds."""
    wrapped = at_least(cut)(every_second)
    wrapped.__module__ = every_second.__module__
    return wrapped


def test_a_function_is_known_by_what_its_decorators_hold():
    assert settings_key(decorated(1.0)) == settings_key(decorated(1.0))
    assert settings_key(decorated(1.0)) != settings_key(decorated(2.0))
    assert settings_key(decorated(1.0)) != settings_key(every_second)
    # A lock, say, changes no number.
    assert settings_key(decorated(object())) == settings_key(decorated(object()))


def test_a_function_is_known_by_the_functions_that_its_decorators_hold():
    def above(least):
        return lambda nats: nats > least

    assert settings_key(decorated(above(1.0))) == settings_key(decorated(above(1.0)))
    assert settings_key(decorated(above(1.0))) != settings_key(decorated(above(2.0)))


def test_a_function_whose_types_are_checked_is_known_again():
    one, other = (settings_key(beartype.beartype(every_second)) for _ in range(2))
    assert one == other


def typed(body, **values):
    """A function as it is typed at a prompt, where inspect finds no source."""
    exec(f"def scope(tokens, nats, least=1):\n    return {body}", values)
    return values["scope"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("nats > 1", "nats > 2"),
        ("nats > 1", "nats > 1.0"),
        ("nats > 1", "nats < 1"),
        ("nats.mean()", "nats.sum()"),
        ("[n > 1 for n in nats]", "[n > 2 for n in nats]"),
    ],
)
def test_functions_of_one_name_are_told_apart_by_what_they_do(one, other):
    assert settings_key(typed(one)) == settings_key(typed(one))
    assert settings_key(typed(one)) != settings_key(typed(other))


def test_a_function_is_known_by_its_defaults():
    one, other = typed("nats > least"), typed("nats > least")
    other.__defaults__ = (2,)
    assert settings_key(one) != settings_key(other)


@pytest.mark.parametrize("body", ["nats > bound", "(lambda: nats > bound)()"])
def test_a_function_is_known_by_the_values_that_it_reads_of_its_module(body, monkeypatch):
    assert settings_key(typed(body, bound=1)) == settings_key(typed(body, bound=1, other=2))
    assert settings_key(typed(body, bound=1)) != settings_key(typed(body, bound=2))
    before = settings_key(above_least)
    monkeypatch.setitem(LEAST, "nats", torch.tensor(2.0))
    assert settings_key(above_least) != before


def test_a_function_that_reads_what_does_not_show_its_contents_is_refused():
    around = {}
    around["itself"] = around
    for bound in (object(), around):
        with pytest.raises(ValueError, match=r"could not know .*because it reads bound, a "):
            settings_key(typed("nats > bound", bound=bound))


def test_a_function_may_read_what_numbers_texts_and_patterns_a_module_has():
    for one, other in (
        (re.compile("a"), re.compile("b")),
        (np.array(["a"]), np.array(["b"])),
        (1, True),
    ):
        of_one, of_other = (settings_key(typed("f(bound)", bound=each)) for each in (one, other))
        assert of_one != of_other
    nan = settings_key(typed("nats > bound", bound=math.nan))
    assert json.loads(json.dumps(nan)) == nan
    # `nats.log` is no global of the module.
    assert settings_key(typed("nats.log()", log=1)) == settings_key(typed("nats.log()", log=2))
    settings_key(typed("log.info(nats) or nats > 1", log=logging.getLogger("tests")))


def test_sums_of_another_function_of_the_same_name_are_not_taken_for_those_asked_for(tmp_path):
    bridge, texts = shared_bridge("llama"), random_texts(2)
    options = {"checkpoint": tmp_path / "sums", "progress": False}
    li.slope_map(bridge, texts, scopes=[typed("nats > 1")], **options)
    with pytest.raises(ValueError, match="differs in scopes"):
        li.slope_map(bridge, texts, scopes=[typed("nats > 2")], **options)


def test_what_has_no_name_is_refused(tmp_path):
    bridge = shared_bridge("llama")
    options = {"scopes": [lambda _tokens, nats: nats > 1], "progress": False}
    li.slope_map(bridge, random_texts(2), **options)
    with pytest.raises(ValueError, match=r"could not know .*<lambda> again: give a function"):
        li.slope_map(bridge, random_texts(2), checkpoint=tmp_path / "sums", **options)
    assert not (tmp_path / "sums").exists()


def test_sums_of_another_write_or_lens_are_not_taken_for_those_asked_for(tmp_path):
    bridge, texts = tiny_bridge("llama"), random_texts(2)
    one, other = (train(bridge, steps=2, seed=seed).write for seed in (0, 1))
    li.curvature(bridge, texts, [one.patch()], checkpoint=tmp_path / "bends", progress=False)
    with pytest.raises(ValueError, match="differs in patches"):
        li.curvature(bridge, texts, [other.patch()], checkpoint=tmp_path / "bends", progress=False)
    weight = torch.eye(bridge.cfg.d_model, dtype=torch.float64).repeat(bridge.cfg.n_layers, 1, 1)
    options = {"sources": ["guess"], "checkpoint": tmp_path / "slopes", "progress": False}
    lens = li.AffineLens(weight=weight, bias=weight[:, 0], settings={}, fingerprint=one.fingerprint)
    li.slope_map(bridge, texts, lens=lens, **options)
    with pytest.raises(ValueError, match="differs in lens"):
        li.slope_map(bridge, texts, lens=replace(lens, weight=2 * weight), **options)


def test_defaults_that_are_given_by_name_count(monkeypatch):
    before = settings_key(above_least)
    monkeypatch.setattr(above_least, "__kwdefaults__", {"also": 2.0})
    assert settings_key(above_least) != before


def times(number):
    def decorate(function):
        @functools.wraps(function)
        def called(*args, times=number):
            return function(*args) * times

        return called

    return decorate


def test_defaults_of_decorators_count():
    assert settings_key(times(2)(every_second)) == settings_key(times(2)(every_second))
    assert settings_key(times(2)(every_second)) != settings_key(times(3)(every_second))


def test_flags_of_a_pattern_count():
    assert settings_key(re.compile("a")) != settings_key(re.compile("a", re.IGNORECASE))


def test_parts_of_a_module_count_without_tensors():
    linear = torch.nn.Linear(3, 3)
    keys = [
        settings_key(torch.nn.Sequential(linear, act()))
        for act in (torch.nn.Sigmoid, torch.nn.Tanh)
    ]
    assert keys[0] != keys[1]


def test_hooks_before_a_module_are_refused_too():
    module = torch.nn.Linear(3, 3)
    module.register_forward_pre_hook(lambda *_: None)
    with pytest.raises(ValueError, match="with hooks on it"):
        settings_key(module)
