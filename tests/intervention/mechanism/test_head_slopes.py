"""Slopes by head against differences of losses, and on a model with one copying head."""

import dataclasses

import numpy as np
import pytest
import torch

import lens_interventions as li
from lens_interventions.intervention.mechanism.head_scores import head_scores
from tests.support import architectures
from tests.support.added_rows import adding
from tests.support.clean import left_as_found
from tests.support.planted import planted_bridge
from tests.support.reference_head_slopes import nats_with_one_head_patched
from tests.support.tiny import random_tokens, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact", "unrounded")


@pytest.mark.parametrize("bridge", ["gpt2", "gpt_neox", "llama", "gemma2", "qwen3"], indirect=True)
def test_slopes_are_the_derivatives_of_losses_where_one_head_reads_the_patch(bridge):
    texts = [random_tokens(8), random_tokens(6)]
    patch = li.NextTokenPatch(
        layer=(0, 1, 2), strength=1.0, mode="add", embedding="W_U", scale="norm"
    )
    found = li.head_slopes(
        bridge, texts, patch, sources=["true", "current"], scopes=["all"], progress=False
    )
    assert [each.source for each in found.patches] == ["true", "current"]
    assert {(each.mode, each.embedding) for each in found.patches} == {("add", "W_U")}
    h = 1e-4
    cells = [(0, 0, 1, 0), (1, 1, 1, 1), (2, 0, 0, 1), (1, 1, 0, 0)]
    for layer, source, part, head in cells:
        expected = []
        for tokens in texts:
            up, down = (
                nats_with_one_head_patched(
                    bridge,
                    tokens,
                    layer,
                    adding(bridge, a, lambda i, by=1 - source, tokens=tokens: tokens[i + by]),
                    "kv"[part],
                    head,
                ).item()
                for a in (h, -h)
            )
            expected.append((up - down) / (2 * h))
        scale = np.abs(expected).max()
        assert scale > 1e-4
        np.testing.assert_allclose(
            found.totals[:, 0, source, layer, part, head], expected, rtol=1e-4, atol=1e-4 * scale
        )


def test_the_copying_head_would_read_values_and_no_keys():
    bridge = planted_bridge()
    part = random_tokens(20)
    patch = li.NextTokenPatch(layer=(0, 1), strength=1.0, mode="add", scale="raw")
    with left_as_found(bridge):
        found = li.head_slopes(bridge, [torch.cat([part, part])] * 2, patch, progress=False)
    frame = found.to_dataframe().set_index(["layer", "part", "source", "minus"])["estimate"]
    for control in ("current", "shuffled", "random"):
        assert frame[1, "values", "true", control] < -1
        assert abs(frame[1, "keys", "true", control]) < 1e-6


@torch.no_grad()
def test_scores_are_those_of_the_patterns_and_of_the_weights():
    bridge = tiny_bridge("llama")
    patterns, alone = {}, {}

    def keep_pattern(pattern, hook):
        patterns.setdefault(hook.name, pattern)

    def keep_tokens(tokens, hook):
        alone.setdefault(tokens.shape[1], tokens)

    with bridge.hooks(
        fwd_hooks=[("blocks.1.attn.hook_pattern", keep_pattern), ("embed.hook_in", keep_tokens)]
    ):
        found = head_scores(bridge)
    (pattern,) = patterns.values()
    n = pattern.shape[-1] // 2
    matching = sum(pattern[:, :, n + i, i + 1] for i in range(n)).mean(0) / n
    previous = sum(pattern[:, :, n + i, n + i - 1] for i in range(n)).mean(0) / n
    torch.testing.assert_close(found.matching[1], matching, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.previous[1], previous, rtol=1e-9, atol=0)

    def rms(x, weight):
        return weight * x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()

    tokens, model = alone[1][:, 0], bridge.original_model.model
    block = model.layers[1]
    _, cache = bridge.run_with_cache(tokens[:, None])
    entering = rms(cache["blocks.1.hook_resid_pre"][:, 0], weight_of(block.input_layernorm))
    for head, score in enumerate(found.copying[1]):
        # Four query heads of width 8 share two of keys and values.
        value = entering @ weight_of(block.self_attn.v_proj)[head // 2 * 8 :][:8].T
        out = value @ weight_of(block.self_attn.o_proj)[:, head * 8 :][:, :8].T
        logits = rms(out, weight_of(model.norm)) @ bridge.W_U[:, tokens]
        moved = logits - logits.mean(0)
        stands_out = (moved.diagonal() - moved.mean(1)) / moved.std(1)
        assert float(score) == pytest.approx(float(stands_out.mean()), rel=1e-4)


def weight_of(module):
    """The weight of a module of the model, which the bridge may have wrapped."""
    return next(iter(module.state_dict().values()))


def test_the_figure_has_heads_of_keys_and_values(llama):
    patch = li.NextTokenPatch(layer=(0, 2), strength=1.0)
    texts = [random_tokens(9), random_tokens(8)]
    found = li.head_slopes(llama, texts, patch, scopes=["all"], progress=False)
    # Four query heads share two of keys and values.
    assert found.matching.shape == (2, 4)
    scores = found.scores()
    assert scores["matching"].tolist() == found.matching.reshape(2, 2, 2).max(-1).tolist()
    assert (
        np.abs(scores["copying"]).tolist()
        == np.abs(found.copying.reshape(2, 2, 2)).max(-1).tolist()
    )
    figure = found.plot(minus="random")
    assert figure.layout.title.text.endswith(": true minus random, all")
    assert "prefix matching" in figure.layout.title.subtitle.text
    assert [list(trace.x) for trace in figure.data] == [["head 0", "head 1"]] * 2
    shown = [[f"{m:.2f}" if m >= 0.1 else "" for m in row] for row in scores["matching"]]
    assert [[list(row) for row in trace.text] for trace in figure.data] == [shown] * 2
    with pytest.raises(ValueError, match="no slope of 'true' minus 'guess'"):
        found.plot(minus="guess")
    turned = dataclasses.replace(
        found, sources=found.sources[::-1], totals=found.totals[:, :, ::-1]
    )
    for one, other in zip(turned.plot(minus="random").data, figure.data, strict=True):
        np.testing.assert_allclose(one.z, other.z)


def test_what_it_refuses():
    patch = li.NextTokenPatch(layer=1, strength=1.0, window=2)
    with pytest.raises(ValueError, match="has a window of 2"):
        li.head_slopes(tiny_bridge("llama"), ["a"], patch, progress=False)
    patch = li.NextTokenPatch(layer=1, strength=1.0, embedding="W_U")
    with pytest.raises(NotImplementedError, match="does not run two copies of a text side by side"):
        li.head_slopes(tiny_bridge("bloom"), [random_tokens(8)], patch, progress=False)


@pytest.mark.parametrize("point", ["hook_k", "hook_v"])
def test_a_model_without_keys_or_values_to_read_is_refused(point, llama, monkeypatch):
    hooks = {name: at for name, at in llama.hook_dict.items() if f"attn.{point}" not in name}
    monkeypatch.setattr(type(llama), "hook_dict", hooks)
    patch = li.NextTokenPatch(layer=1, strength=1.0)
    with pytest.raises(NotImplementedError, match=rf"no blocks\.1\.attn\.{point}"):
        li.head_slopes(llama, [random_tokens(8)], patch, progress=False)


def test_a_model_whose_keys_are_laid_out_otherwise_is_refused(monkeypatch):
    config = {
        **architectures.LENS_ARCHITECTURES["llama"],
        "num_key_value_heads": 4,
        "head_dim": 4,
        "kv_lora_rank": 16,
        "q_lora_rank": None,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "first_k_dense_replace": 3,  # no experts
    }
    monkeypatch.setitem(architectures.ARCHITECTURES, "deepseek_v3", config)
    patch = li.NextTokenPatch(layer=1, strength=1.0)
    with pytest.raises(NotImplementedError, match=r"hook_k of \w+ has shape"):
        li.head_slopes(tiny_bridge("deepseek_v3"), [random_tokens(14)], patch, progress=False)
