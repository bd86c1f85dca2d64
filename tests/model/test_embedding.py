"""The token embedding as the model feeds it."""

import pytest
import torch
from transformer_lens.utilities import get_act_name

from lens_interventions.model.embedding import embedding
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
