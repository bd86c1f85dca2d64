"""Generation leaves the bridge as it was, lets its hooks fire, and is never silently wrong."""

import importlib.metadata
import re
import warnings
from dataclasses import replace
from unittest import mock

import pytest
import torch
from transformers import DynamicCache, LogitsProcessor, TemperatureLogitsWarper
from transformers.cache_utils import DynamicLayer

import lens_interventions as li
from lens_interventions.intervention.generation import cached_decoder as kv_cache
from lens_interventions.intervention.generation import decoder
from lens_interventions.model.attention_masks import additive_masks
from lens_interventions.model.bypass import Unwrapping
from tests.support.clean import left_as_found
from tests.support.exact import float64_softmax
from tests.support.reference_generation import generate_naively
from tests.support.tiny import (
    ARCHITECTURES,
    D_VOCAB,
    LENS_ARCHITECTURES,
    N_CTX,
    shared_bridge,
    tiny_bridge,
)

PROMPTS = [[5, 17, 4, 44, 17, 60, 9], [33, 8]]
PATCH = li.NextTokenPatch(layer=1, strength=0.5)
OPTIONS = {"max_new_tokens": 5, "stop_at_eos": False}


def naive(bridge, patch, prompts=PROMPTS):
    return [generate_naively(bridge, prompt, patch, 5)[0] for prompt in prompts]


# --- the bridge is left as it was ------------------------------------------------------------


class Failing(LogitsProcessor):
    def __init__(self, error, at):
        self.error, self.at, self.calls = error, at, 0

    def __call__(self, _input_ids, scores):
        self.calls += 1
        if self.calls == self.at:
            raise self.error
        return scores


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_bridge_is_as_it_was_after_an_exception(error, dtype):
    bridge = shared_bridge("llama", dtype)
    with left_as_found(bridge), pytest.raises(type(error)):
        li.generate(bridge, PROMPTS, PATCH, logits_processor=[Failing(error, 5)], **OPTIONS)

    def failing_source(site):
        if site.text.length.max() > 9:
            raise error
        return site.next_tokens

    patch = li.NextTokenPatch(layer=(1, 2), strength=0.1, source=failing_source)
    with left_as_found(bridge), pytest.raises(type(error)):
        li.generate(bridge, PROMPTS, patch, **OPTIONS)

    tokens = []

    def failing_callback(step):
        tokens.append(step.tokens)
        if step.step == 3:
            raise error

    with left_as_found(bridge), pytest.raises(type(error)):
        li.generate(bridge, PROMPTS, PATCH, callback=failing_callback, **OPTIONS)
    whole = li.generate(bridge, PROMPTS, PATCH, **OPTIONS)
    assert torch.equal(torch.stack(tokens, dim=1), whole.tokens[:, :4])


def test_bridge_is_as_it_was_after_an_error_within_a_block():
    bridge = shared_bridge("gpt2")

    def fail(resid, hook):
        if resid.shape[1] == 2:  # not in the prompt
            raise RuntimeError("out of memory, as it were")

    with (
        left_as_found(bridge),
        pytest.raises(RuntimeError, match="as it were"),
        bridge.hooks(fwd_hooks=[("blocks.2.attn.hook_q", fail)]),
    ):
        li.generate(bridge, PROMPTS, PATCH, **OPTIONS)


def test_bridge_can_be_used_within_a_callback():
    bridge = shared_bridge("mistral", torch.float32)
    tokens = torch.tensor(PROMPTS[:1])
    expected = bridge(tokens)
    seen = []

    def use(step):
        _, cache = bridge.run_with_cache(tokens)
        seen.append(cache["blocks.2.attn.hook_pattern"].shape)
        torch.testing.assert_close(bridge(tokens), expected, rtol=0, atol=0)
        li.generate(bridge, tokens, None, max_new_tokens=2)

    out = li.generate(bridge, PROMPTS, PATCH, callback=use, **OPTIONS)
    assert torch.equal(out.tokens, li.generate(bridge, PROMPTS, PATCH, **OPTIONS).tokens)
    assert len(seen) == 5


# --- hooks -----------------------------------------------------------------------------------


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
        assert out.tokens.tolist() == naive(bridge, patch)
    assert not torch.allclose(out.log_probs, plain.log_probs, atol=1e-2)


def test_torch_hooks_of_the_user_fire():
    bridge = shared_bridge("llama", torch.float32)
    plain = li.generate(bridge, PROMPTS, PATCH, **OPTIONS)
    handle = bridge.blocks[2].mlp.register_forward_hook(lambda _m, _args, out: 2 * out)
    try:
        out = li.generate(bridge, PROMPTS, PATCH, **OPTIONS)
        assert out.tokens.tolist() == naive(bridge, PATCH)
    finally:
        handle.remove()
    assert not torch.allclose(out.log_probs, plain.log_probs, atol=1e-2)


# --- without the wrapping --------------------------------------------------------------------


@pytest.mark.parametrize("arch", LENS_ARCHITECTURES)
def test_unwrapped_models_are_the_same(arch):
    bridge = shared_bridge(arch, torch.float32)
    tokens = torch.tensor([[5, 17, 4, 44, 17, 60, 9, 31, 8]])
    expected = bridge(tokens)
    with left_as_found(bridge):
        with Unwrapping(bridge)():
            unwrapped = bridge(tokens)
        # The modules of transformers do the same in another order, in float32.
        torch.testing.assert_close(unwrapped, expected, rtol=0, atol=1e-4)


def test_only_blocks_without_hooks_are_unwrapped():
    bridge = shared_bridge("llama", torch.float32)
    block = type(bridge.blocks[0])
    listening = [("blocks.1.attn.hook_pattern", lambda _pattern, hook: None)]
    with bridge.hooks(fwd_hooks=listening), Unwrapping(bridge)():
        assert [type(b) is block for b in bridge.blocks] == [False, True, False]
    assert all(type(b) is block for b in bridge.blocks)


def test_edited_weights_count():
    # TransformerLens splits GPT-2's joint query-key-value matrix into weights of its own.
    bridge = tiny_bridge("gpt2", dtype=torch.float32)
    plain = li.generate(bridge, PROMPTS, PATCH, **OPTIONS)
    with torch.no_grad():
        bridge.blocks[1].attn.v.weight.zero_()
        bridge.blocks[2].mlp.out.weight.mul_(2)
    out = li.generate(bridge, PROMPTS, PATCH, **OPTIONS)
    assert out.tokens.tolist() == naive(bridge, PATCH)
    assert not torch.allclose(out.log_probs, plain.log_probs, atol=1e-2)


@pytest.mark.parametrize("arch", ["gpt2", "llama"])
def test_compatibility_mode(arch):
    bridge = tiny_bridge(arch, dtype=torch.float32)
    li.generate(bridge, PROMPTS, PATCH, **OPTIONS)
    bridge.enable_compatibility_mode()
    out = li.generate(bridge, PROMPTS, PATCH, **OPTIONS)
    assert out.tokens.tolist() == naive(bridge, PATCH)


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


# --- what would be wrong is found out --------------------------------------------------------


def test_an_empty_cache_is_named():
    # What TransformerLens 4.3 does under transformers 5.24: the attention never sees the cache.
    bridge = tiny_bridge("llama")
    with (
        mock.patch.object(DynamicCache, "update", lambda _self, k, v, *_args, **_kw: (k, v)),
        mock.patch.object(importlib.metadata, "version", return_value="5.24.0"),
        pytest.raises(kv_cache.CacheError, match=re.escape("pip install 'transformers")),
    ):
        li.generate(bridge, PROMPTS, PATCH, **OPTIONS)


def test_a_cache_that_cannot_be_shortened_is_named():
    bridge = tiny_bridge("llama")
    with (
        mock.patch.object(DynamicLayer, "crop", return_value=None),
        pytest.raises(kv_cache.CacheError, match="holds 7 positions where it should hold 6"),
    ):
        li.generate(bridge, PROMPTS, PATCH, **OPTIONS)


def _every_other_key(bridge, visible, distance, dtype):
    return additive_masks(bridge, visible & (distance % 2 == 0), distance, dtype)


@pytest.mark.parametrize("patch", [None, PATCH, li.NextTokenPatch(layer=0, strength=0.5)])
def test_where_the_cached_path_is_wrong_everything_is_recomputed(patch):
    bridge = tiny_bridge("llama")
    with (
        mock.patch.object(kv_cache, "additive_masks", _every_other_key),
        float64_softmax(),
        pytest.warns(UserWarning, match="not exact on LlamaForCausalLM .*recomputed"),
    ):
        out = li.generate(bridge, PROMPTS, patch, trajectory=True, **OPTIONS)
    assert out.tokens.tolist() == naive(bridge, patch)
    with float64_softmax():
        cached = li.generate(tiny_bridge("llama"), PROMPTS, patch, trajectory=True, **OPTIONS)
    torch.testing.assert_close(out.log_probs, cached.log_probs, rtol=0, atol=1e-9)
    for name in ("entropy", "kl_final"):
        torch.testing.assert_close(
            out.trajectory.statistic(name), cached.trajectory.statistic(name), rtol=0, atol=1e-9
        )


@pytest.mark.parametrize(
    ("arch", "config"), [("bloom", {}), ("falcon", {"alibi": True})], ids=["bloom", "falcon-alibi"]
)
def test_models_that_do_not_take_masks_are_recomputed(arch, config):
    bridge = tiny_bridge(arch, **config)
    with left_as_found(bridge), float64_softmax():
        with pytest.warns(UserWarning, match="recomputed from its start"):
            out = li.generate(bridge, PROMPTS, [PATCH, None], **OPTIONS)
        assert out.tokens.tolist() == naive(bridge, PATCH) + naive(bridge, None)


def test_the_probe_runs_once_and_without_the_users_hooks():
    bridge = tiny_bridge("gpt_neox")
    positions = []

    def by_position(resid, hook):
        positions.append(resid.shape[1])
        return resid * torch.arange(1, resid.shape[1] + 1)[None, :, None]

    listening = [("blocks.0.hook_resid_pre", by_position)]
    with bridge.hooks(fwd_hooks=listening), warnings.catch_warnings():
        warnings.simplefilter("error")
        li.generate(bridge, PROMPTS[:1], PATCH, max_new_tokens=2)
    assert positions == [len(PROMPTS[0]), 1]
    with mock.patch.object(decoder, "_probe", side_effect=AssertionError):
        li.generate(bridge, PROMPTS[:1], PATCH, max_new_tokens=1)


OTHERS = {
    "jamba": {
        **ARCHITECTURES["llama"],
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "use_mamba_kernels": False,
        "mamba_d_state": 4,
        "mamba_dt_rank": 4,
    },
    "rwkv": {"hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 3},
    "llama4_text": {
        **ARCHITECTURES["llama"],
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        # Longer than what the probe looks at.
        "attention_chunk_size": 10,
        "intermediate_size_mlp": 48,
    },
}


@pytest.mark.parametrize(
    ("arch", "error", "message"),
    [
        ("mamba", NotImplementedError, "recurrent state"),
        ("t5", NotImplementedError, "encoder-decoder"),
        ("jamba", NotImplementedError, "recurrent layers"),
        ("rwkv", kv_cache.CacheError, "as recurrent models do not"),
    ],
)
def test_other_models_are_refused(monkeypatch, arch, error, message):
    monkeypatch.setitem(ARCHITECTURES, arch, OTHERS.get(arch) or ARCHITECTURES[arch])
    bridge = tiny_bridge(arch, dtype=torch.float32)
    with pytest.raises(error, match=message):
        li.generate(bridge, PROMPTS, None, max_new_tokens=1)


def test_attention_in_chunks_is_found_out(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "llama4_text", OTHERS["llama4_text"])
    bridge = tiny_bridge("llama4_text", dtype=torch.float32)
    with pytest.warns(UserWarning, match="it has layers of chunked_attention"):
        out = li.generate(bridge, PROMPTS, PATCH, **OPTIONS)
    assert out.tokens.tolist() == naive(bridge, PATCH)
    text = torch.arange(4, 34)[None]
    with pytest.warns(UserWarning, match="does not run two copies|is not exact"):
        scored = li.teacher_forced_log_probs(bridge, text, PATCH)[0]
    for known in (9, 29):
        hooks = PATCH.fwd_hooks(bridge, text[:, :known])
        with torch.no_grad():
            logits = bridge.run_with_hooks(text[:, :known], fwd_hooks=hooks)[0, -1]
        # Twice the same in float32.
        assert scored[known - 1] == pytest.approx(
            float(logits.log_softmax(-1)[text[0, known]]), abs=1e-4
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_new_tokens": 0}, "at least 1"),
        ({"chunk_size": 0}, "at least 1"),
        ({"max_new_tokens": N_CTX - 6}, f"ask for {N_CTX - 7} at most"),
        ({"patch": []}, "list of patches is empty"),
        ({"patch": li.NextTokenPatch(layer=3, strength=0.1)}, "blocks 0 to 2"),
        ({"temperature": 0.5}, "do_sample=True"),
        ({"temperature": 0.0, "do_sample": True}, "above 0"),
        ({"seed": [1]}, "1 seeds for 2 prompts"),
        ({"prompt_length": torch.tensor([3])}, r"prompt_length has shape \(1,\); give one number"),
        ({"prompt_length": 3}, r"prompt_length must be from 1 to .*\[7, 2\], got \[3, 3\]"),
        ({"prompts": [[D_VOCAB]]}, "token ids must be in"),
        ({"prompts": [""]}, "empty"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_input_is_named(arguments, message):
    bridge = shared_bridge("llama")
    options = {"prompts": PROMPTS, "patch": PATCH, "max_new_tokens": 2} | arguments
    with left_as_found(bridge), pytest.raises(ValueError, match=message):
        li.generate(bridge, **options)


@pytest.mark.parametrize("used_before", [False, True])
def test_training_mode_is_refused(used_before):
    bridge, text = tiny_bridge("gpt2"), torch.arange(4, 12)[None]
    if used_before:
        li.logit_lens(bridge, text)
    bridge.train()
    for run in (
        lambda: li.generate(bridge, PROMPTS, max_new_tokens=1),
        lambda: li.teacher_forced_log_probs(bridge, text, None),
        lambda: li.teacher_forced_logits(bridge, text, PATCH),
        lambda: li.effect_map(bridge, text, lambda logits: logits.mean(), patch=PATCH),
    ):
        with pytest.raises(ValueError, match=r"training mode.*bridge\.eval\(\)"):
            run()


def test_values_that_are_not_numbers_are_named():
    bridge = shared_bridge("llama")
    patch = li.NextTokenPatch(layer=1, strength=1.0, source=lambda site: site.resid * torch.nan)
    with pytest.raises(ValueError, match="not a number"):
        li.generate(bridge, PROMPTS, patch, **OPTIONS)

    class Nothing(LogitsProcessor):
        def __call__(self, _input_ids, scores):
            return scores * torch.nan

    with pytest.raises(ValueError, match="without any token"):
        li.generate(
            bridge,
            PROMPTS,
            do_sample=True,
            logits_processor=[TemperatureLogitsWarper(2.0), Nothing()],
            **OPTIONS,
        )
