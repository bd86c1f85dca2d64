"""The cached decoder: hooks act, edited weights count, and a cache that is not kept is named."""

import warnings
from contextlib import nullcontext
from dataclasses import replace
from unittest import mock

import pytest
import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer

import lens_interventions as li
from lens_interventions.intervention.generation import cached_decoder, decoder
from tests.support.clean import left_as_found
from tests.support.exact import float64_softmax
from tests.support.reference_generation import generate_naively
from tests.support.tiny import (
    shared_bridge,
    tiny_bridge,
)

PROMPTS = [[5, 17, 4, 44, 17, 60, 9], [33, 8]]
PATCH = li.NextTokenPatch(layer=1, strength=0.5)
OPTIONS = {"max_new_tokens": 5, "stop_at_eos": False}


def assert_naive(out, naive, atol=1e-9):
    """Tokens and log-probabilities are those of `generate_naively` on each prompt."""
    for row, (tokens, logits) in enumerate(naive):
        assert out.tokens[row].tolist() == tokens
        expected = logits.log_softmax(-1).gather(-1, out.tokens[row, :, None])[:, 0]
        torch.testing.assert_close(
            out.log_probs[row], expected, rtol=0, atol=atol, check_dtype=False
        )


def naively(bridge, patch):
    return [generate_naively(bridge, prompt, patch, 5) for prompt in PROMPTS]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "name",
    [
        "blocks.0.hook_resid_pre",
        "blocks.0.mlp.hook_out",
        "blocks.1.hook_resid_pre",  # where the patch is, and the two runs meet
        "blocks.1.attn.hook_v",
        "blocks.2.hook_resid_post",
        "blocks.2.attn.hook_z",
        "ln_final.hook_normalized",
    ],
)
def test_hooks_of_the_user_act_as_without_a_cache(name, dtype):
    bridge = shared_bridge("llama", dtype)
    # The naive reference reads W_E off the first block's input, which one of the hooks changes.
    patch = replace(PATCH, embedding="W_U")
    plain = li.generate(bridge, PROMPTS, patch, **OPTIONS)
    with (
        float64_softmax(),
        bridge.hooks(fwd_hooks=[(name, lambda tensor, hook: 1.7 * tensor + 0.3)]),
    ):
        out = li.generate(bridge, PROMPTS, patch, **OPTIONS)
        assert_naive(out, naively(bridge, patch), 1e-9 if dtype == torch.float64 else 1e-4)
    assert not torch.allclose(out.log_probs, plain.log_probs, atol=1e-2)


@pytest.mark.parametrize("layer", [1, 2, (1, 2)])
@pytest.mark.parametrize("block", [0, 1, 2])
@pytest.mark.parametrize("before", [False, True])
def test_a_torch_hook_on_a_block_acts_once(layer, block, before):
    bridge, patch = shared_bridge("llama"), replace(PATCH, layer=layer, embedding="W_U")
    plain = li.generate(bridge, PROMPTS, patch, **OPTIONS)

    def push_before(_block, args, kwargs):
        return tuple(1.5 * arg + 0.2 for arg in args[:1]) + args[1:], kwargs

    def push_after(_block, _args, out):
        return 1.5 * out + 0.2

    module = bridge.original_model.model.layers[block]
    handle = (
        module.register_forward_pre_hook(push_before, with_kwargs=True)
        if before
        else module.register_forward_hook(push_after)
    )
    try:
        with float64_softmax():
            out = li.generate(bridge, PROMPTS, patch, **OPTIONS)
            assert_naive(out, naively(bridge, patch))
    finally:
        handle.remove()
    assert not torch.allclose(out.log_probs, plain.log_probs, atol=1e-2)


def test_the_trial_is_of_two_parts_where_decoding_is(monkeypatch):
    """A torch hook on a block above the patch does not forbid them."""
    bridge, splits = tiny_bridge("llama", num_hidden_layers=8), []
    first = cached_decoder.first_of_two_parts

    def noted(*arguments):
        splits.append(first(*arguments))
        return splits[-1]

    monkeypatch.setattr(cached_decoder, "first_of_two_parts", noted)
    handle = bridge.blocks[3].register_forward_hook(lambda _block, _args, out: out + 0.1)
    try:
        li.generate(bridge, PROMPTS, replace(PATCH, layer=1), **OPTIONS)
    finally:
        handle.remove()
    # Two trials, each also without a patch, and the decoding itself.
    assert splits == [1, 0, 1, 0, 1]


@pytest.mark.parametrize("patch", [None, PATCH])
def test_a_hook_gets_whole_prompts_however_many_there_are(patch):
    bridge, n_prompts = shared_bridge("llama"), 4096 // (len(PROMPTS[0]) - 1)

    def push_the_last_two(resid, hook):
        if resid.shape[1] > 2:
            return torch.cat([resid[:, :5], resid[:, 5:] + 5], dim=1)
        return resid

    with bridge.hooks(fwd_hooks=[("blocks.0.hook_resid_post", push_the_last_two)]):
        alone, many = (
            li.generate(bridge, PROMPTS[:1] * n, patch, max_new_tokens=1) for n in (1, n_prompts)
        )
    torch.testing.assert_close(many.log_probs, alone.log_probs.expand(n_prompts, -1))


@pytest.mark.filterwarnings("error:decoding with a cache")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_model_that_was_converted_later_is_decoded_in_its_dtype(architecture, dtype):
    bridge = tiny_bridge(architecture, dtype=torch.float32)
    bridge.original_model.to(dtype)
    out = li.generate(bridge, PROMPTS, [None, PATCH], **OPTIONS)
    loaded = tiny_bridge(architecture, dtype=dtype)
    assert torch.equal(out.tokens, li.generate(loaded, PROMPTS, [None, PATCH], **OPTIONS).tokens)


def test_torch_hooks_of_the_user_fire():
    bridge = shared_bridge("llama", torch.float32)
    plain = li.generate(bridge, PROMPTS, PATCH, **OPTIONS)
    handle = bridge.blocks[2].mlp.register_forward_hook(lambda _m, _args, out: 2 * out)
    try:
        out = li.generate(bridge, PROMPTS, PATCH, **OPTIONS)
        assert_naive(out, naively(bridge, PATCH), 1e-4)  # float32
    finally:
        handle.remove()
    assert not torch.allclose(out.log_probs, plain.log_probs, atol=1e-2)


def test_bridge_is_as_it_was_after_an_error_within_a_block():
    bridge = shared_bridge("gpt2")

    def fail(resid, hook):
        if resid.shape[1] == 1:  # not in the prompt
            raise RuntimeError("out of memory, as it were")

    with (
        left_as_found(bridge),
        pytest.raises(RuntimeError, match="as it were"),
        bridge.hooks(fwd_hooks=[("blocks.0.attn.hook_q", fail)]),
    ):
        li.generate(bridge, PROMPTS, PATCH, **OPTIONS)


def test_edited_weights_count():
    # TransformerLens splits GPT-2's joint query-key-value matrix into weights of its own.
    bridge = tiny_bridge("gpt2", dtype=torch.float32)
    plain = li.generate(bridge, PROMPTS, PATCH, **OPTIONS)
    with torch.no_grad():
        bridge.blocks[1].attn.v.weight.zero_()
        bridge.blocks[2].mlp.out.weight.mul_(2)
    out = li.generate(bridge, PROMPTS, PATCH, **OPTIONS)
    assert_naive(out, naively(bridge, PATCH), 1e-4)  # float32
    assert not torch.allclose(out.log_probs, plain.log_probs, atol=1e-2)


@pytest.mark.parametrize("arch", ["gpt2", "llama"])
def test_compatibility_mode(arch):
    bridge = tiny_bridge(arch, dtype=torch.float32)
    li.generate(bridge, PROMPTS, PATCH, **OPTIONS)
    bridge.enable_compatibility_mode()
    out = li.generate(bridge, PROMPTS, PATCH, **OPTIONS)
    assert_naive(out, naively(bridge, PATCH), 1e-4)  # float32


@pytest.mark.parametrize("arch", ["llama", "gpt2", "gemma3_text", "olmo2"])
def test_bfloat16(arch):
    bridge = shared_bridge(arch, torch.bfloat16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = li.generate(bridge, PROMPTS, [None, PATCH], trajectory=True, **OPTIONS)
    assert out.log_probs.dtype == torch.float32
    # Each logit is rounded to 8 bits on several ways.
    reference = shared_bridge(arch, torch.float32)
    for row, patch in enumerate([None, PATCH]):
        tokens = out.whole.tokens[2 * row][None, : len(PROMPTS[0]) + 4]
        hooks = [] if patch is None else patch.fwd_hooks(reference, tokens)
        expected = reference.run_with_hooks(tokens, fwd_hooks=hooks)[0, -1].log_softmax(-1)
        assert abs(out.log_probs[2 * row, 4] - expected[out.tokens[2 * row, 4]]) < 0.5


def test_an_empty_cache_is_named():
    # As where versions do not fit each other: the attention never sees the cache.
    bridge = tiny_bridge("llama")
    with (
        mock.patch.object(Cache, "update", lambda _self, k, v, *_args, **_kw: (k, v)),
        pytest.raises(cached_decoder.CacheError, match="do not fit each other"),
    ):
        li.generate(bridge, PROMPTS, PATCH, **OPTIONS)


def test_a_cache_that_cannot_be_shortened_is_named():
    bridge = tiny_bridge("llama")
    with (
        mock.patch.object(DynamicLayer, "crop", return_value=None),
        pytest.raises(cached_decoder.CacheError, match="holds 7 positions where it should hold 6"),
    ):
        li.generate(bridge, PROMPTS, PATCH, **OPTIONS)


def test_a_window_that_spans_the_text_costs_what_no_window_costs(monkeypatch):
    bridge = shared_bridge("llama")
    # The hook would count the columns of the trial as well.
    monkeypatch.setattr(decoder, "_probe", lambda *_, **_options: "")

    def rows_above(window):
        seen = []
        count = [("blocks.2.hook_resid_pre", lambda resid, hook: seen.append(resid.shape[1]))]
        with bridge.hooks(fwd_hooks=count):
            li.generate(bridge, PROMPTS[:1], replace(PATCH, window=window), **OPTIONS)
        return seen

    assert rows_above(50) == rows_above(None)
    # Until a position leaves the window, and from there on all of it.
    assert rows_above(8) == [7, 2, 2, 10, 10]


def test_under_autocast_decoding_is_judged_by_the_precision_of_its_products(recwarn):
    """Eight blocks of this width round by a hundredth of a standard deviation."""
    bridge = tiny_bridge("gpt2", dtype=torch.float32, n_embd=256, n_head=4, n_layer=8)
    patch = li.NextTokenPatch(layer=4, strength=0.5, scale="norm", embedding="W_U")
    for context in (torch.autocast("cpu", dtype=torch.bfloat16), nullcontext()):
        with context:
            li.generate(bridge, [[5, 6, 7]], patch, max_new_tokens=2)
    assert not recwarn.list
