"""The mean residual that `scale="deviation"` measures from."""

import pytest
import torch

from lens_interventions.intervention.known_text import KnownText
from lens_interventions.intervention.mean_residuals import mean_residuals
from lens_interventions.intervention.patch import NextTokenPatch
from lens_interventions.model.tokens import TokenBatch
from tests.support.tiny import random_tokens, tiny_bridge


@torch.no_grad()
def test_it_is_a_constant_of_the_weights_whatever_hooks_are_on():
    bridge, other = tiny_bridge("llama"), tiny_bridge("llama")
    means = mean_residuals(bridge)
    with other.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", lambda resid, hook: resid + 1)]):
        assert torch.equal(mean_residuals(other), means)
    other.original_model.get_input_embeddings().weight[:] *= 2
    assert not torch.allclose(mean_residuals(other), means)


@torch.no_grad()
@pytest.mark.parametrize(("scale", "same"), [("deviation", True), ("norm", False)])
def test_what_all_residuals_have_in_common_does_not_count(scale, same):
    bridge, tokens = tiny_bridge("gpt2"), random_tokens(1, 8)
    text = KnownText.from_batch(TokenBatch(tokens, tokens >= 0))
    patch = NextTokenPatch(layer=0, strength=0.5, mode="add", scale=scale)

    def written():
        _, cache = bridge.run_with_cache(tokens)
        resid = cache["blocks.0.hook_resid_pre"]
        rows = patch.bind(bridge)(resid, layer=0, position=text.column_positions(), text=text)
        return rows - resid

    before = written()
    bridge.original_model.transformer.wpe.weight[:] += 3
    assert torch.allclose(written(), before, rtol=0, atol=1e-9) == same


def test_a_bridge_without_a_tokenizer_is_refused():
    bridge = tiny_bridge("llama")
    bridge.tokenizer = None
    with pytest.raises(ValueError, match="the bridge has no tokenizer to read them with"):
        NextTokenPatch(layer=1, strength=0.5, scale="deviation").bind(bridge)
