"""Trainings of patches on tiny models: texts, options of seconds, and how results are compared."""

import dataclasses

import torch

import lens_interventions as li
from tests.support.tiny import D_VOCAB

SMALL = li.TrainingOptions(
    window=12, batch_size=3, evaluate_every=4, learning_rate=0.01, held_out_windows=4
)
# So slow that nothing changes by a bit: what comes out is what it began with.
NO_STEPS = dataclasses.replace(SMALL, learning_rate=1e-300)


def random_texts(n=24, *, seed=0):
    """Token ids of 5 to 14 tokens."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randint(4, D_VOCAB, (5 + i % 10,), generator=generator).tolist() for i in range(n)
    ]


def train(bridge, texts=None, **options):
    texts = random_texts() if texts is None else texts
    defaults = {"layer": 1, "rank": 4, "steps": 9, "options": SMALL, "progress": False}
    return li.train_patch(bridge, texts, **{**defaults, **options})


def tensors(write):
    names = ("down", "up", "bias", "gate_weight", "gate_bias")
    return {name: getattr(write, name) for name in names}


def assert_same_bits(one, other):
    for name, value in tensors(one).items():
        if value is None:
            assert getattr(other, name) is None
        else:
            torch.testing.assert_close(value, getattr(other, name), rtol=0, atol=0)


def bias_patch(size, leaf):
    """A patch that adds `size * leaf` at layer 1 to every position but the first."""
    return li.NextTokenPatch(
        layer=1,
        strength=1.0,
        source="current",
        mode=lambda site, e, s, a: site.resid + size * leaf,  # noqa: ARG005 - as modes are called
        first_position=1,
    )
