"""What components add to logits: their sum is the model's own, and each is what it alone writes."""

import dataclasses
import re

import numpy as np
import pytest
import torch

import lens_interventions as li
from lens_interventions.drawing.labels import visible
from tests.support.architectures import ARCHITECTURES
from tests.support.clean import left_as_found
from tests.support.tiny import random_tokens, shared_bridge, tiny_bridge

TOKENS = torch.arange(5, 29).view(2, 12) * 7 % 97 + 4


# A norm behind the attention changes what the heads wrote.
POST_NORMS = ("Gemma2ForCausalLM", "Gemma3ForCausalLM", "Olmo2ForCausalLM")


@torch.no_grad()
@pytest.mark.parametrize("heads", [False, True])
def test_the_sum_of_all_is_the_logit(bridge, heads):
    if heads and bridge.cfg.architecture in POST_NORMS:
        with pytest.raises(NotImplementedError, match="heads write does not add up to what layer"):
            li.component_logits(bridge, TOKENS, token=7, heads=True)
        return
    found = li.component_logits(bridge, TOKENS, token=7, heads=heads)
    expected = bridge(TOKENS)[..., 7]
    total = found.logits.sum(0)
    if bridge.cfg.architecture.startswith("Gemma2"):  # whose soft cap bends the sum
        total = bridge.adapter.apply_output_logits_transform(total)
    # The norms of Hugging Face's Llamas compute in float32.
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-6)
    has_bias = any(name.endswith("attn_bias") for name in found.components)
    assert has_bias == (
        heads and bridge.blocks[0].attn.b_O is not None and bool(bridge.blocks[0].attn.b_O.any())
    )
    assert found.components[0] == "embed"
    assert found.components[-1] == "bias"


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_biases_of_attention_count_in_half_precision(dtype):
    bridge = shared_bridge("gpt2", dtype)
    heads, layers = (li.component_logits(bridge, TOKENS, token=7, heads=h) for h in (True, False))
    assert [name for name in heads.components if "bias" in name] == [
        "0_attn_bias",
        "1_attn_bias",
        "2_attn_bias",
        "bias",
    ]
    expected = bridge(TOKENS)[..., 7].float()
    for found in (heads, layers):
        total = found.logits.float().sum(0)
        # Several hundred sums are rounded to 11 or 8 bits.
        torch.testing.assert_close(total, expected, rtol=0, atol=20 * torch.finfo(dtype).eps)
        assert found.logits.dtype == torch.float32
        np.testing.assert_array_equal(found.to_dataframe()["logits"], found.logits.flatten())


@torch.no_grad()
def test_components_in_half_precision_are_read_in_float32():
    bridge = shared_bridge("llama", torch.bfloat16)
    found = li.component_logits(bridge, TOKENS, token=7)
    _, cache = bridge.run_with_cache(TOKENS)
    final = cache["blocks.2.hook_resid_post"]
    gain, row = bridge.ln_final.weight.float(), bridge.W_U[:, 7].float()
    # The norm's own scale is rounded to three digits, alike for all components of a position.
    scale = found.logits[0] / (cache["hook_embed"].float() * gain * row).sum(-1)
    torch.testing.assert_close(
        scale, final.float().pow(2).mean(-1).rsqrt(), rtol=torch.finfo(torch.bfloat16).eps, atol=0
    )
    mlp = (cache["blocks.2.hook_mlp_out"].float() * gain * row).sum(-1)
    # The scale is a quotient of sums in float32.
    torch.testing.assert_close(
        found.logits[found.components.index("2_mlp_out")], mlp * scale, rtol=0, atol=1e-5
    )


@torch.no_grad()
def test_a_component_is_what_it_writes_through_the_norm_of_the_whole(llama):
    bridge = llama
    before = li.component_logits(bridge, TOKENS, token=7)
    _, cache = bridge.run_with_cache(TOKENS)
    mlp, final = cache["blocks.2.hook_mlp_out"], cache["blocks.2.hook_resid_post"]
    norm = bridge.original_model.model.norm
    scale = (final.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt()
    expected = (mlp * scale * norm.weight) @ bridge.W_U[:, 7]
    index = before.components.index("2_mlp_out")
    torch.testing.assert_close(before.logits[index], expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_heads_are_parts_of_their_layer(llama):
    layers = li.component_logits(llama, TOKENS, token=7)
    heads = li.component_logits(llama, TOKENS, token=7, heads=True)
    names = [name for name in heads.components if name.startswith("L1H")]
    assert len(names) == int(llama.cfg.n_heads)
    parts = heads.logits[[heads.components.index(name) for name in names]].sum(0)
    whole = layers.logits[layers.components.index("1_attn_out")]
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-9)


@torch.no_grad()
def test_by_default_it_is_the_top_guess_and_against_takes_a_difference(llama):
    logits = llama(TOKENS)
    found = li.component_logits(llama, TOKENS)
    assert torch.equal(found.targets, logits.argmax(-1))
    torch.testing.assert_close(found.logits.sum(0), logits.max(-1).values, rtol=0, atol=1e-6)
    against = li.component_logits(llama, TOKENS, token=7, against=9)
    expected = logits[..., 7] - logits[..., 9]
    torch.testing.assert_close(against.logits.sum(0), expected, rtol=0, atol=1e-6)
    text = visible(llama.tokenizer.decode([9]))
    assert f"less that of {text}" in against.plot().layout.title.text
    assert "less" not in found.plot().layout.title.text


@torch.no_grad()
@pytest.mark.parametrize("arch", ["gpt2", "llama"])
def test_each_text_has_its_own_token(arch):
    bridge = shared_bridge(arch)
    found = li.component_logits(bridge, TOKENS, token=[7, 8], against=[9, 10])
    for row, (token, against) in enumerate([(7, 9), (8, 10)]):
        alone = li.component_logits(bridge, TOKENS[row], token=token, against=against)
        torch.testing.assert_close(found.logits[:, [row]], alone.logits, rtol=0, atol=1e-9)
        assert found.targets[row].unique().tolist() == [token]
    text = visible(bridge.tokenizer.decode([10]))
    assert f"less that of {text}" in found.plot(batch=1).layout.title.text
    with pytest.raises(ValueError, match="token names 3 tokens for 2 texts: name one"):
        li.component_logits(bridge, TOKENS, token=[7, 8, 9])


def test_table_and_figure_show_the_numbers_without_padding(llama):
    found = li.component_logits(llama, ["the people say", "the time"], token=" say")
    lengths = found.mask.sum(-1).tolist()
    assert lengths[0] > lengths[1]
    frame = found.to_dataframe()
    assert len(frame) == len(found.components) * sum(lengths)
    assert set(frame["target"]) == {" say"}
    assert frame["logits"].notna().all()
    figure = found.plot(batch=1, rows=3)
    (heat,) = (trace for trace in figure.data if trace.type == "heatmap")
    values = found.logits[:, 1, : lengths[1]].numpy()
    largest = np.sort(np.argsort(-np.median(np.abs(values), axis=1))[:3])
    np.testing.assert_allclose(np.array(heat.z, float), values[largest], atol=5.1e-5)
    assert list(figure.layout.yaxis.ticktext) == [found.components[i] for i in largest]
    with pytest.raises(ValueError, match="prompt 2 does not exist: there are 2 prompts"):
        found.plot(batch=2)
    with pytest.raises(ValueError, match="rows must be at least 1, got 0"):
        found.plot(rows=0)


def test_a_hook_that_writes_to_the_stream_is_named(llama):
    steering = [("blocks.1.hook_resid_post", lambda resid, hook: resid + 1)]
    with (
        llama.hooks(fwd_hooks=steering),
        pytest.raises(NotImplementedError, match="a hook on the bridge writes to the stream"),
    ):
        li.component_logits(llama, TOKENS)


@pytest.mark.parametrize("arch", ["gpt2", "llama"])
def test_heads_add_up_under_autocast(arch):
    bridge = tiny_bridge(arch).float()
    with torch.autocast("cpu"):
        found = li.component_logits(bridge, TOKENS, token=7, heads=True)
    plain = li.component_logits(bridge, TOKENS, token=7, heads=True)
    # Products of bfloat16 have three digits, and these logits go up to 3.
    torch.testing.assert_close(found.logits, plain.logits, rtol=0, atol=0.1)


def test_heads_that_cannot_be_seen_are_refused(monkeypatch):
    config = {
        **{name: ARCHITECTURES["llama"][name] for name in ("hidden_size", "num_hidden_layers")},
        "num_key_value_heads": 2,
        "kv_channels": 8,
        "num_local_experts": 4,
        "experts_implementation": "eager",
    }
    monkeypatch.setitem(ARCHITECTURES, "jetmoe", config)
    bridge = tiny_bridge("jetmoe")
    with pytest.raises(NotImplementedError, match=r"has no blocks\.0\.attn\.hook_z"):
        li.component_logits(bridge, TOKENS, heads=True)


def test_more_than_one_token_is_refused_and_the_bridge_stays_as_it_was():
    with left_as_found(shared_bridge("llama")) as bridge:
        with pytest.raises(ValueError, match="token names 2 tokens for 1 text"):
            li.component_logits(bridge, TOKENS[0], token=[5, 6])
        li.component_logits(bridge, TOKENS, heads=True)


@torch.no_grad()
@pytest.mark.parametrize("part", [slice(None), slice(3, 4)])
def test_heads_of_an_ablated_layer_add_nothing(llama, part):
    def ablate(z, hook):
        z = z.clone()
        z[:, part] = 0
        return z

    with llama.hooks(fwd_hooks=[("blocks.1.attn.hook_z", ablate)]):
        found = li.component_logits(llama, TOKENS, token=7, heads=True)
        torch.testing.assert_close(found.logits.sum(0), llama(TOKENS)[..., 7], rtol=0, atol=1e-6)
    heads = [i for i, name in enumerate(found.components) if name.startswith("L1H")]
    assert heads
    assert (found.logits[heads][..., part] == 0).all()


def test_a_figure_keeps_components_that_add_and_take_away(llama):
    found = li.component_logits(llama, TOKENS[:1, :2], token=7)
    logits = torch.ones_like(found.logits)
    logits[1, 0] = torch.tensor([5.0, -5.0])
    figure = dataclasses.replace(found, logits=logits).plot(rows=1)
    assert list(figure.layout.yaxis.ticktext) == [found.components[1]]
    n = len(found.components)
    for shown, said in ((1, ", of which 1 are shown,"), (n, "")):
        title = found.plot(rows=shown).layout.title.text.replace("<br>", " ")
        title = re.sub("<[^>]*>", "", title)
        assert f"All {n} components{said} sum to its logit, before any soft cap." in title


def test_a_component_that_writes_what_is_not_finite_is_not_taken_for_a_hook_beside_it(llama):
    hooks = [("blocks.0.hook_mlp_out", lambda written, hook: written * torch.nan)]
    with llama.hooks(fwd_hooks=hooks), pytest.raises(ValueError, match="is not finite: look for"):
        li.component_logits(llama, random_tokens(1, 6), token=7)
