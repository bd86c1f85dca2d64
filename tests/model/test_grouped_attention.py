"""Grouped attention is softmax attention, and stands in for nothing that is more."""

from unittest import mock

import pytest
import torch
from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward as capped
from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward as with_sinks
from transformers.models.llama.modeling_llama import eager_attention_forward as plain

import lens_interventions as li
from lens_interventions.model import grouped_attention as module
from lens_interventions.model.grouped_attention import grouped_attention
from tests.support.tiny import shared_bridge

TOKENS = torch.tensor([[5, 17, 4, 44, 17, 60, 9]])


@pytest.mark.parametrize("group", [1, 3])
def test_it_is_softmax_attention(group):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    query, key, value = draw(2, 2 * group, 3, 8), draw(2, 2, 5, 8), draw(2, 2, 5, 8)
    mask = torch.zeros(2, 1, 3, 5, dtype=torch.float64)
    mask[0, 0, 0, 1:] = mask[1, 0, 2, :2] = torch.finfo(torch.float64).min
    found = grouped_attention(query, key, value, mask, 0.7)
    for text in range(2):
        for head in range(2 * group):
            scores = 0.7 * query[text, head] @ key[text, head // group].T + mask[text, 0]
            expected = scores.softmax(-1) @ value[text, head // group]
            torch.testing.assert_close(found[text, :, head], expected, rtol=0, atol=1e-9)


def scaled_by_layer(module, query, key, value, attention_mask, scaling, **kwargs):
    return plain(module, query, key, value, attention_mask, scaling / (1 + module.layer_idx))


def biased(module, query, key, value, attention_mask, scaling, **kwargs):
    return plain(module, query, key, value, attention_mask - torch.arange(5), scaling)


@pytest.mark.parametrize("other", [with_sinks, scaled_by_layer, biased])
def test_attention_that_is_more_is_told_apart(other):
    assert module._is_plain(plain)
    assert not module._is_plain(other)


def test_a_cap_on_the_scores_is_told_by_its_argument():
    assert module._is_plain(capped)
    assert module._further_arguments(capped) == {"softcap"}


@pytest.fixture
def watched(monkeypatch):
    """A spy in the place of `grouped_attention`, which does as it does."""
    module._is_plain(plain)  # which calls it too
    spy = mock.Mock(wraps=grouped_attention)
    monkeypatch.setattr(module, "grouped_attention", spy)
    return spy


def n_grouped(watched, bridge):
    """How many blocks attend by it in a step."""
    li.generate(bridge, TOKENS, max_new_tokens=1)  # tries the decoder first
    before = watched.call_count
    li.generate(bridge, TOKENS, max_new_tokens=1)
    return watched.call_count - before


@pytest.mark.parametrize(("arch", "expected"), [("qwen3", 3), ("gemma3_text", 3), ("gemma2", 0)])
def test_it_is_used_where_it_is_the_same(watched, arch, expected):
    bridge = shared_bridge(arch, torch.float32)
    bridge(TOKENS)
    assert watched.call_count == 0
    assert n_grouped(watched, bridge) == expected


def test_a_block_with_a_hook_attends_as_ever(watched):
    bridge = shared_bridge("qwen3", torch.float32)
    seen = []
    hook = ("blocks.1.attn.hook_pattern", lambda pattern, hook: seen.append(pattern))
    with bridge.hooks(fwd_hooks=[hook]):
        assert n_grouped(watched, bridge) == 2
    assert len(seen) == 2
