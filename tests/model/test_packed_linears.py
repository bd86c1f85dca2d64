"""A model whose linear modules multiply with packed weights computes the same, and comes back."""

import pytest
import torch
from torch import nn

import lens_interventions as li
from lens_interventions.intervention.generation import cached_decoder
from lens_interventions.model import packed_linears as packed_linears_module
from lens_interventions.model import product as product_module
from lens_interventions.model.packed_linears import packed_linears
from tests.support.clean import left_as_found
from tests.support.tiny import shared_bridge

TOKENS = torch.arange(24).reshape(4, 6)
PATCH = li.NextTokenPatch(layer=1, strength=0.5)
pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch has no oneDNN"
)


@pytest.fixture(autouse=True)
def always_faster(monkeypatch):
    monkeypatch.setattr(product_module, "_is_faster", lambda _d_in, _rows: True)


def n_packed(model):
    return sum("forward" in vars(module) for module in model.modules() if type(module) is nn.Linear)


@pytest.mark.parametrize("arch", ["llama", "gpt_neox", "phi", "mixtral"])
@torch.no_grad()
def test_logits_are_the_same(arch):
    bridge = shared_bridge(arch, torch.float32)
    expected = bridge(TOKENS)
    with left_as_found(bridge):
        with packed_linears(bridge.original_model, 4):
            assert n_packed(bridge.original_model) > 0
            found = bridge(TOKENS)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_copies_keep_to_their_room_and_begin_with_the_unembedding(monkeypatch):
    model = shared_bridge("llama", torch.float32).original_model
    head = model.lm_head.weight
    monkeypatch.setattr(packed_linears_module, "_COPY_BYTES", 4 * head.numel() + 1)
    with packed_linears(model, 4):
        assert n_packed(model) == 1
    assert n_packed(model) == 0


def test_generation_of_many_tokens_is_that_of_few(monkeypatch):
    bridge = shared_bridge("llama", torch.float32)
    options = {"max_new_tokens": 16, "stop_at_eos": False}
    seen = []
    before = cached_decoder.CachedDecoder.logits

    def watched(decoder, text):
        seen.append(n_packed(bridge.original_model))
        return before(decoder, text)

    few = [
        li.generate(bridge, row[None], PATCH, **options).log_probs for row in TOKENS.repeat(2, 1)
    ]
    monkeypatch.setattr(cached_decoder.CachedDecoder, "logits", watched)
    with left_as_found(bridge):
        many = li.generate(bridge, TOKENS.repeat(2, 1), PATCH, **options)
    assert len(seen) == 16
    assert min(seen) > 0
    torch.testing.assert_close(many.log_probs, torch.cat(few), rtol=0, atol=1e-3)
