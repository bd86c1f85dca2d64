"""What the library reads off a bridge."""

import pytest
import torch
from transformer_lens.utilities import get_act_name

from lens_interventions.model.embedding import embedding
from lens_interventions.model.hooks import without_hooks
from lens_interventions.model.readout import readout
from lens_interventions.model.residuals import residuals
from lens_interventions.model.tokens import token_batch
from tests.support.clean import left_as_found
from tests.support.tiny import shared_bridge, tiny_bridge

TOKENS = torch.tensor([[5, 9, 33, 71, 20]])


def test_embedding_is_what_the_model_feeds(bridge):
    _, cache = bridge.run_with_cache(TOKENS, names_filter="hook_embed")
    fed = cache[get_act_name("embed")]
    torch.testing.assert_close(embedding(bridge)(TOKENS), fed.detach(), rtol=1e-9, atol=0)


def test_a_scaled_embedding_is_not_the_weight():
    bridge = shared_bridge("gemma2")
    assert embedding(bridge).scale == pytest.approx(32**0.5)


def test_a_transformed_embedding_is_refused():
    bridge = tiny_bridge("llama")
    bridge.add_perma_hook("hook_embed", lambda tensor, hook: tensor.cumsum(-1))
    with pytest.raises(NotImplementedError, match="embedding='W_U'"):
        embedding(bridge)


def test_readout_of_the_last_point_is_the_model(bridge):
    (last,) = residuals(bridge, token_batch(bridge, TOKENS), ["final_post"])
    torch.testing.assert_close(readout(bridge)(last), bridge(TOKENS), rtol=0, atol=1e-9)


def test_a_soft_cap_is_not_linear():
    assert readout(shared_bridge("gemma2")).scale is None
    assert readout(shared_bridge("cohere")).scale == 0.5
    assert readout(shared_bridge("granite")).scale == 0.5
    assert readout(shared_bridge("llama")).scale == 1


def test_hooks_are_off_only_within():
    bridge = tiny_bridge("llama")
    seen = []
    bridge.add_hook("blocks.1.hook_resid_pre", lambda _, hook: seen.append(hook.name))
    with left_as_found(bridge):
        seen.clear()
        with without_hooks(bridge.hook_points()):
            bridge(TOKENS)
        assert seen == []
        bridge(TOKENS)
        assert len(seen) == 1


def test_permanent_hooks_stay_on():
    """OPT's bridge reshapes activations by permanent hooks of its own."""
    bridge = shared_bridge("opt")
    with without_hooks(bridge.hook_points()):
        without = bridge(TOKENS)
    torch.testing.assert_close(without, bridge(TOKENS), rtol=0, atol=0)


def test_an_interrupted_reading_leaves_the_bridge_as_it_was():
    bridge = shared_bridge("llama")

    def interrupt(tensor, hook):
        raise KeyboardInterrupt

    with left_as_found(bridge), bridge.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", interrupt)]):
        with pytest.raises(KeyboardInterrupt):
            residuals(bridge, token_batch(bridge, TOKENS), ["0_pre", "final_post"])
        assert len(bridge.hook_dict["blocks.0.hook_resid_pre"].fwd_hooks) == 0
