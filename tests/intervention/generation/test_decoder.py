"""Where decoding with a cache would be wrong, that is found out: it is recomputed or refused."""

import warnings
from dataclasses import replace
from unittest import mock

import pytest
import torch

import lens_interventions as li
from lens_interventions.intervention.generation import cached_decoder, decoder
from lens_interventions.intervention.sources import BackPatch
from lens_interventions.model.attention_masks import additive_masks
from tests.support.clean import left_as_found
from tests.support.exact import float64_softmax
from tests.support.reference_generation import naive_tokens
from tests.support.tiny import long_rope_bridge, tiny_bridge

PROMPTS = [[5, 17, 4, 44, 17, 60, 9], [33, 8]]
PATCH = li.NextTokenPatch(layer=1, strength=0.5)
BACK = li.NextTokenPatch(layer=1, strength=0.7, source=BackPatch(3))
GATED = li.NextTokenPatch(layer=1, strength=1.0, gate=4.0, gate_on="output")
OPTIONS = {"max_new_tokens": 5, "stop_at_eos": False}


def _every_other_key(bridge, visible, distance, dtype):
    return additive_masks(bridge, visible & (distance % 2 == 0), distance, dtype)


@pytest.mark.parametrize(
    "patch", [None, PATCH, li.NextTokenPatch(layer=0, strength=0.5), GATED, BACK]
)
def test_where_the_cached_path_is_wrong_everything_is_recomputed(patch):
    bridge = tiny_bridge("llama")
    with (
        mock.patch.object(cached_decoder, "additive_masks", _every_other_key),
        float64_softmax(),
        pytest.warns(UserWarning, match="not exact on LlamaForCausalLM .*recomputed"),
    ):
        out = li.generate(bridge, PROMPTS, patch, trajectory=True, **OPTIONS)
    assert out.tokens.tolist() == naive_tokens(bridge, PROMPTS, patch, 5)
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
    patch = replace(PATCH, embedding="W_U")  # BLOOM feeds no row of W_E
    with left_as_found(bridge), float64_softmax():
        with pytest.warns(UserWarning, match="recomputed from its start"):
            out = li.generate(bridge, PROMPTS, [patch, None], **OPTIONS)
        assert out.tokens.tolist() == naive_tokens(bridge, PROMPTS, patch, 5) + naive_tokens(
            bridge, PROMPTS, None, 5
        )


def test_memory_that_lacks_once_is_no_fault_of_the_model():
    """On a CPU torch raises a plain `RuntimeError`. Afterwards a warning would be an error here."""
    bridge = tiny_bridge("llama")

    def full(*_args, **_options):
        return torch.empty(10**16)

    with (
        mock.patch.object(decoder.CachedDecoder, "logits", full),
        pytest.raises(RuntimeError, match=r"allocate memory|not enough memory"),
    ):
        li.generate(bridge, PROMPTS, PATCH, **OPTIONS)
    with float64_softmax():
        out = li.generate(bridge, PROMPTS, PATCH, **OPTIONS)
    assert out.tokens.tolist() == naive_tokens(bridge, PROMPTS, PATCH, 5)


def test_weights_that_are_no_numbers_are_named_and_can_be_mended():
    bridge = tiny_bridge("llama")
    weight = bridge.original_model.model.layers[2].mlp.down_proj.weight
    kept = weight.data[0, 0].clone()
    weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        li.generate(bridge, PROMPTS, PATCH, **OPTIONS)
    weight.data[0, 0] = kept
    with float64_softmax():
        out = li.generate(bridge, PROMPTS, PATCH, **OPTIONS)
    assert out.tokens.tolist() == naive_tokens(bridge, PROMPTS, PATCH, 5)


def test_a_block_that_hands_something_to_a_higher_one_is_found_where_it_is():
    """Two parts are wrong if the patch is between these blocks, and right elsewhere."""
    bridge, kept = tiny_bridge("llama", num_hidden_layers=6), {}
    bridge.blocks[3].mlp.register_forward_hook(lambda _m, _a, out: kept.update(skipped=out))
    bridge.blocks[4].mlp.register_forward_hook(lambda _m, _a, out: out + kept["skipped"])
    with float64_softmax():
        for layer in (1, 3, 5):
            patch = li.NextTokenPatch(layer=layer, strength=0.5)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                out = li.generate(bridge, PROMPTS, patch, **OPTIONS)
            assert out.tokens.tolist() == naive_tokens(bridge, PROMPTS, patch, 5)
        between = li.NextTokenPatch(layer=4, strength=0.5)
        with pytest.warns(UserWarning, match="not exact on LlamaForCausalLM .*recomputed"):
            out = li.generate(bridge, PROMPTS, between, **OPTIONS)
        assert out.tokens.tolist() == naive_tokens(bridge, PROMPTS, between, 5)


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


def prompt_only(resid, hook):
    if resid.shape[1] == 1:
        return resid
    return torch.cat([resid[:, :2] + 1, resid[:, 2:]], dim=1)


def new_only(resid, hook):
    return resid if resid.shape[1] > 1 else resid + 1


def summed(resid, hook):
    return resid.cumsum(1)


def steer(resid, hook):
    return resid + torch.linspace(-1, 1, resid.shape[-1], dtype=resid.dtype)


@pytest.mark.parametrize("fn", [prompt_only, new_only, summed])
def test_a_hook_that_goes_by_column_above_the_patch_gets_whole_texts(fn):
    bridge, prompts = tiny_bridge("llama"), [PROMPTS[0]]
    hooks = [("blocks.2.hook_resid_pre", fn)]
    with bridge.hooks(fwd_hooks=hooks), float64_softmax():
        expected = naive_tokens(bridge, prompts, PATCH, 5)
        with pytest.warns(UserWarning, match="under the hooks on it logits differ.*recomputed"):
            out = li.generate(bridge, prompts, PATCH, **OPTIONS)
    assert out.tokens.tolist() == expected


def first_column(resid, hook):
    return torch.cat([0 * resid[:, :1], resid[:, 1:]], dim=1)


def smeared(resid, hook):
    return torch.cat([resid[:, :1], resid[:, 1:] + resid[:, :-1]], dim=1)


@pytest.mark.parametrize("patch", [None, PATCH])
@pytest.mark.parametrize("name", ["hook_resid_pre", "hook_mlp_out", "hook_resid_post"])
@pytest.mark.parametrize("fn", [first_column, smeared])
def test_a_permanent_hook_may_act_otherwise_on_one_column_than_on_two(fn, name, patch):
    bridge, prompts = tiny_bridge("llama"), [PROMPTS[0]]
    # In the last block, where what it does to one column shows in no other.
    bridge.hook_dict[f"blocks.2.{name}"].add_perma_hook(fn)
    with float64_softmax():
        expected = naive_tokens(bridge, prompts, patch, 5)
        with pytest.warns(UserWarning, match="not exact on Llama.*recomputed"):
            out = li.generate(bridge, prompts, patch, **OPTIONS)
    assert out.tokens.tolist() == expected


def late(resid, hook):
    """Acts beyond the few tokens that are enough to try a decoder on most models."""
    return torch.cat([resid[:, :12], steer(resid[:, 12:], hook)], dim=1)


def at_twelve(resid, hook):
    return torch.cat([resid[:, :12], -resid[:, 12:13], resid[:, 13:]], dim=1)


@pytest.mark.parametrize("patch", [None, PATCH])
@pytest.mark.parametrize("fn", [late, at_twelve])
def test_a_permanent_hook_may_act_at_any_column(fn, patch):
    bridge, prompts = tiny_bridge("llama"), [PROMPTS[0]]
    bridge.blocks[2].hook_resid_post.add_perma_hook(fn)  # the last: no later column sees it
    with float64_softmax():
        expected = naive_tokens(bridge, prompts, patch, 12)
        with pytest.warns(UserWarning, match=r"on texts of up to \d+ tokens.*recomputed"):
            out = li.generate(bridge, prompts, patch, **OPTIONS | {"max_new_tokens": 12})
    assert out.tokens.tolist() == expected


def test_a_permanent_hook_may_know_no_more_columns_than_come_up():
    bridge, prompts = tiny_bridge("llama"), [PROMPTS[0]]
    steered = torch.arange(len(PROMPTS[0]) + 12)[:, None] >= 12

    def in_some_columns(resid, hook):
        return resid + steered[: resid.shape[1]] * torch.linspace(-1, 1, 32, dtype=resid.dtype)

    bridge.blocks[2].hook_resid_post.add_perma_hook(in_some_columns)
    with float64_softmax():
        expected = naive_tokens(bridge, prompts, PATCH, 12)
        with pytest.warns(UserWarning, match=r"on texts of up to \d+ tokens.*recomputed"):
            out = li.generate(bridge, prompts, PATCH, **OPTIONS | {"max_new_tokens": 12})
    assert out.tokens.tolist() == expected


@pytest.mark.parametrize("fn", [late, at_twelve])
def test_a_temporary_hook_above_the_patch_may_act_at_any_column(fn):
    bridge, prompts = tiny_bridge("llama"), [PROMPTS[0]]
    with bridge.hooks(fwd_hooks=[("blocks.2.hook_resid_post", fn)]), float64_softmax():
        expected = naive_tokens(bridge, prompts, PATCH, 12)
        with pytest.warns(UserWarning, match="under the hooks on it logits differ.*recomputed"):
            out = li.generate(bridge, prompts, PATCH, **OPTIONS | {"max_new_tokens": 12})
    assert out.tokens.tolist() == expected


def test_a_window_that_the_model_ignores_is_found_where_it_would_matter():
    bridge, tokens = tiny_bridge("llama", sliding_window=12), torch.arange(4, 34)[None]
    nothing = replace(PATCH, strength=0.0)
    with float64_softmax(), left_as_found(bridge):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            li.generate(bridge, PROMPTS, PATCH, **OPTIONS)
        with pytest.warns(UserWarning, match="beyond its window of 12 tokens.*recomputed"):
            out = li.generate(bridge, PROMPTS, PATCH, **OPTIONS | {"max_new_tokens": 12})
        assert out.tokens.tolist() == naive_tokens(bridge, PROMPTS, PATCH, 12)
        with pytest.warns(UserWarning, match="does not run two copies|is not exact"):
            (logits,) = li.teacher_forced_logits(bridge, tokens, nothing)
        torch.testing.assert_close(logits, bridge(tokens)[0], rtol=0, atol=1e-9)


def test_a_window_that_the_model_heeds_is_no_reason_to_recompute():
    bridge = tiny_bridge("mistral", sliding_window=12)
    with float64_softmax(), warnings.catch_warnings():
        warnings.simplefilter("error")
        out = li.generate(bridge, PROMPTS, PATCH, **OPTIONS | {"max_new_tokens": 12})
        assert out.tokens.tolist() == naive_tokens(bridge, PROMPTS, PATCH, 12)


def test_a_hook_that_treats_positions_alike_is_no_reason_to_recompute():
    bridge = tiny_bridge("llama")
    with warnings.catch_warnings(), float64_softmax():
        warnings.simplefilter("error")
        with bridge.hooks(fwd_hooks=[("blocks.2.hook_resid_post", steer)]):
            longer = OPTIONS | {"max_new_tokens": 12}
            out = li.generate(bridge, PROMPTS[:1], PATCH, **longer)
            assert out.tokens.tolist() == naive_tokens(bridge, PROMPTS[:1], PATCH, 12)
        bridge.blocks[0].hook_resid_post.add_perma_hook(steer)
        out = li.generate(bridge, PROMPTS[:1], PATCH, **longer)
        assert out.tokens.tolist() == naive_tokens(bridge, PROMPTS[:1], PATCH, 12)
        # Below the patch each step has one column, as without one, and any hook will do.
        with bridge.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", new_only)]):
            li.generate(bridge, PROMPTS[:1], PATCH, **OPTIONS)


def test_hooks_on_embeddings_act_once_in_a_step():
    bridge, seen = tiny_bridge("gpt2"), []
    hooks = [("hook_pos_embed", lambda tensor, hook: seen.append(tensor.shape[1]))]
    with bridge.hooks(fwd_hooks=hooks):
        li.generate(bridge, PROMPTS[:1], PATCH, max_new_tokens=2, stop_at_eos=False)
    assert seen == [len(PROMPTS[0]), 1]


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("mamba", "recurrent state"),
        ("t5", "encoder-decoder"),
        ("jamba", "recurrent layers"),
        ("rwkv", r"recurrent layers \(time_mix\)"),
    ],
)
def test_other_models_are_refused(arch, message):
    bridge = tiny_bridge(arch, dtype=torch.float32)
    with pytest.raises(NotImplementedError, match=message):
        li.generate(bridge, PROMPTS, None, max_new_tokens=1)


def test_attention_in_chunks_is_found_out():
    bridge = tiny_bridge("llama4_text", dtype=torch.float32)
    with pytest.warns(UserWarning, match="it has layers of chunked_attention"):
        out = li.generate(bridge, PROMPTS, PATCH, **OPTIONS)
    assert out.tokens.tolist() == naive_tokens(bridge, PROMPTS, PATCH, 5)
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


def test_beyond_a_change_of_rotary_frequencies_everything_is_recomputed():
    """A cache would keep the keys of the shorter text."""
    bridge = long_rope_bridge(9)
    with float64_softmax(), pytest.warns(UserWarning, match="frequencies change after 9 tokens"):
        out = li.generate(bridge, PROMPTS, [PATCH, None], **OPTIONS)
    for row, patch in enumerate((PATCH, None)):
        assert out.of_patch(row).tokens.tolist() == naive_tokens(bridge, PROMPTS, patch, 5)
    with float64_softmax(), warnings.catch_warnings():
        warnings.simplefilter("error")
        li.generate(bridge, [[5, 17, 4]], PATCH, **OPTIONS)  # 8 tokens in all
