"""The user's model is as it was after every call, also after one that failed inside the model."""

from contextlib import contextmanager

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

import lens_interventions as li
from lens_interventions.model.gradients import frozen
from tests.support.clean import left_as_found
from tests.support.small_training import train
from tests.support.tiny import tiny_bridge, tiny_model, tiny_tokenizer

PATCH = li.NextTokenPatch(layer=1, strength=0.5)
TEXT = torch.arange(3, 20)[None]
CALLS = {
    "lens": lambda bridge: li.logit_lens(bridge, TEXT).entropy,
    "teacher forcing": lambda bridge: li.teacher_forced_logits(bridge, TEXT, [PATCH, None]),
    "generation": lambda bridge: li.generate(bridge, TEXT, PATCH, max_new_tokens=3).log_probs,
    "layer contrast": lambda bridge: (
        li.generate(bridge, TEXT, max_new_tokens=3, logits_processor=[li.DoLa()]).log_probs
    ),
    "effect map": lambda bridge: (
        li.effect_map(bridge, TEXT, lambda logits: logits[0, -1, 0], patch=PATCH).effect
    ),
    "training": lambda bridge: train(bridge, steps=2, adapt="attention").write.up,
    "search": lambda bridge: li.search_sequence(bridge, TEXT[0], 3, budget=80).log_probs,
}


class BrokenError(Exception):
    """Raised in the model's own forward."""


class RaisesOnce:
    """A hook of torch that counts the runs of a module, and raises in one of them."""

    def __init__(self, error, at):
        self.error, self.at, self.runs = error, at, 0

    def __call__(self, *_):
        self.runs += 1
        if self.runs == self.at:
            raise self.error


@contextmanager
def counted(bridge, *, at, error):
    """A `RaisesOnce` in the middle of the model's own forward."""
    hook = RaisesOnce(error, at)
    handle = bridge.original_model.model.layers[1].mlp.down_proj.register_forward_pre_hook(hook)
    try:
        yield hook
    finally:
        handle.remove()


def weights(bridge):
    return {name: value.clone() for name, value in bridge.original_model.state_dict().items()}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("arch", ["gemma2", "gemma3_text"])
def test_a_model_that_fails_in_its_own_forward_is_left_as_it_was(arch, call):
    bridge = tiny_bridge(arch)
    before, expected = weights(bridge), call(other := tiny_bridge(arch))
    with counted(other, at=0, error=None) as whole:
        call(other)
    # The first runs are the library's checks of the model, of which nothing may be left half done.
    for error, at in ((BrokenError(), 1), (KeyboardInterrupt(), 2), (BrokenError(), whole.runs)):
        with (
            left_as_found(bridge),
            counted(bridge, at=at, error=error),
            pytest.raises(type(error)),
        ):
            call(bridge)
    with left_as_found(bridge):
        found = call(bridge)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    after = weights(bridge)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def two_of_the_same_weights():
    """Two bridges around two models that share every parameter."""
    models = tiny_model("llama"), tiny_model("llama", seed=1)
    for one, other in zip(*(model.modules() for model in models), strict=True):
        other._parameters = dict(one._parameters)
    return [
        TransformerBridge.boot_transformers(
            "tiny-llama",
            hf_model=model,
            dtype=torch.float64,
            device="cpu",
            tokenizer=tiny_tokenizer(),
        )
        for model in models
    ]


def test_bridges_that_share_weights_do_not_hear_of_each_other():
    first, second = two_of_the_same_weights()
    shared = {id(parameter) for parameter in first.original_model.parameters()}
    assert shared == {id(parameter) for parameter in second.original_model.parameters()}
    expected = {name: call(tiny_bridge("llama")) for name, call in CALLS.items()}
    read = []

    def use_the_other(_step):
        with left_as_found(second):
            read.append({name: call(second) for name, call in CALLS.items()})

    with left_as_found(first):
        li.generate(first, TEXT, PATCH, max_new_tokens=1, callback=use_the_other)
    for name, values in read[0].items():
        torch.testing.assert_close(values, expected[name], rtol=0, atol=0, equal_nan=True)


def test_shared_weights_ask_for_gradients_again_when_the_last_run_has_ended():
    first, second = two_of_the_same_weights()
    parameters = list(first.original_model.parameters())
    parameters[0].requires_grad_(False)
    runs = frozen(first), frozen(second)
    for run in runs:
        run.__enter__()
        assert not any(parameter.requires_grad for parameter in parameters)
    runs[0].__exit__(None, None, None)
    assert not any(parameter.requires_grad for parameter in parameters)
    runs[1].__exit__(None, None, None)
    assert [parameter.requires_grad for parameter in parameters] == [
        False,
        *[True] * (len(parameters) - 1),
    ]
