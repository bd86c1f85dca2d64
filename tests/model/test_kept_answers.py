"""Answers that one process keeps for the next."""

import importlib.metadata
import types
from unittest.mock import patch

import pytest
import torch

from lens_interventions.model import kept_answers
from lens_interventions.model.kept_answers import is_kept, keep_right
from tests.support.tiny import tiny_bridge
from tests.support.user_hooks import LASTING, push_first

QUESTION = "two streams from layer 0"


@pytest.fixture
def any_size(monkeypatch, user_cache):
    monkeypatch.setattr(kept_answers, "_LARGE", 0)
    return user_cache


def test_the_same_model_loaded_again_is_known(any_size):
    assert not is_kept(tiny_bridge("llama"), QUESTION)
    keep_right(tiny_bridge("llama"), QUESTION)
    assert is_kept(tiny_bridge("llama"), QUESTION)
    assert not is_kept(tiny_bridge("llama"), "two streams from layer 1")


def other_weights(bridge):
    with torch.no_grad():
        bridge.original_model.model.layers[1].mlp.up_proj.weight.mul_(2)


def other_precision(bridge):
    bridge.to(torch.float32)


def other_attention(bridge):
    # TransformerLens 3.9 leaves it at sdpa, later versions at eager.
    config = bridge.original_model.config
    config._attn_implementation = "sdpa" if config._attn_implementation == "eager" else "eager"


def other_device(bridge):
    # What was found there, by products that round in another way.
    bridge.cfg.device = "cuda:0"


def other_forward(bridge):
    attention = bridge.original_model.model.layers[1].self_attn

    def upside_down(self, hidden_states, **kwargs):
        return type(self).forward(self, -hidden_states, **kwargs)

    attention.forward = types.MethodType(upside_down, attention)


def other_config(bridge):
    bridge.original_model.config.rms_norm_eps *= 2


def hook_that_stays(bridge):
    bridge.blocks[1].hook_out.add_perma_hook(lambda tensor, hook: -tensor)


def hook_of_torch(bridge):
    attention = bridge.original_model.model.layers[1].self_attn
    attention.register_forward_pre_hook(lambda *_: None)


@pytest.mark.parametrize(
    "change",
    [
        other_weights,
        other_precision,
        other_attention,
        other_device,
        other_forward,
        other_config,
        hook_that_stays,
        hook_of_torch,
    ],
)
def test_a_changed_model_is_not(any_size, change):
    keep_right(tiny_bridge("llama"), QUESTION)
    assert is_kept(tiny_bridge("llama"), QUESTION)
    bridge = tiny_bridge("llama")
    change(bridge)
    assert not is_kept(bridge, QUESTION)


@pytest.mark.parametrize("how", ["closure", "default", "mapping"])
def test_what_the_forward_of_a_class_has_at_hand_counts(any_size, how):
    kind = type(tiny_bridge("llama").original_model.model.layers[1].self_attn)
    forward = kind.forward

    def scaled(scale):
        def by_closure(*args, **kwargs):
            return scale * forward(*args, **kwargs)[0], None

        def by_default(*args, scale=scale, **kwargs):
            return scale * forward(*args, **kwargs)[0], None

        def by_mapping(*args, scales={"all": [scale]}, **kwargs):  # noqa: B006
            return scales["all"][0] * forward(*args, **kwargs)[0], None

        ways = {"closure": by_closure, "default": by_default, "mapping": by_mapping}
        return patch.object(kind, "forward", ways[how])

    with scaled(1.0):
        keep_right(tiny_bridge("llama"), QUESTION)
    for scale, kept in ((1.0, True), (-1.0, False)):
        with scaled(scale):
            assert is_kept(tiny_bridge("llama"), QUESTION) is kept


@pytest.mark.parametrize("put_on", LASTING)
def test_nothing_is_kept_of_a_model_with_hooks(any_size, put_on):
    bridge = tiny_bridge("llama")
    with put_on(bridge, 1, push_first):
        keep_right(bridge, QUESTION)
        assert not is_kept(bridge, QUESTION)
    assert not is_kept(bridge, QUESTION)


@pytest.mark.parametrize("package", ["torch", "transformers", "transformer_lens"])
def test_an_answer_of_other_versions_of_what_runs_the_model_is_not(any_size, monkeypatch, package):
    keep_right(tiny_bridge("llama"), QUESTION)
    installed = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "0" if name == package else installed(name)
    )
    assert not is_kept(tiny_bridge("llama"), QUESTION)


def test_an_answer_of_another_version_of_the_library_is_not(any_size, monkeypatch):
    keep_right(tiny_bridge("llama"), QUESTION)
    monkeypatch.setattr(kept_answers, "_own_code", lambda: "of another release")
    assert not is_kept(tiny_bridge("llama"), QUESTION)


def test_a_small_model_leaves_no_file(user_cache):
    keep_right(tiny_bridge("llama"), QUESTION)
    assert not is_kept(tiny_bridge("llama"), QUESTION)
    assert not user_cache.exists()


def test_a_cache_that_cannot_be_written_is_no_error(any_size):
    any_size.write_text("a file where the directory would be")
    keep_right(tiny_bridge("llama"), QUESTION)
    assert not is_kept(tiny_bridge("llama"), QUESTION)


def test_an_answer_is_not_for_autocast(any_size):
    keep_right(tiny_bridge("llama", dtype=torch.float32), QUESTION)
    assert is_kept(tiny_bridge("llama", dtype=torch.float32), QUESTION)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not is_kept(tiny_bridge("llama", dtype=torch.float32), QUESTION)
