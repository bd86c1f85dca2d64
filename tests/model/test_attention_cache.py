"""The cache of keys and values, by whichever name it is handed on."""

from types import SimpleNamespace

import pytest
import torch
from transformer_lens.model_bridge.generalized_components.attention import AttentionBridge
from transformers import DynamicCache

from lens_interventions.model.attention_cache import as_argument, shorten
from tests.support.tiny import shared_bridge


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_attention_fills_a_cache_by_either_name(name):
    cache, vector = DynamicCache(), torch.ones(1, 1, 1, 1)
    attention = SimpleNamespace(_layer_idx=0, name="attn")
    for length in (1, 2):
        keys, values = AttentionBridge._update_kv_cache(attention, vector, vector, **{name: cache})
        assert keys.shape == values.shape == (1, 1, length, 1)
    assert cache.get_seq_length() == 2


def test_a_models_own_generation_sees_its_prompt():
    """With a cache that stays empty each new token would attend to itself alone."""
    bridge, tokens = shared_bridge("llama"), torch.tensor([[5, 6, 7, 8]])
    generated = bridge.generate(
        tokens, max_new_tokens=4, do_sample=False, verbose=False, stop_at_eos=False
    )
    for length in range(4, 8):
        with torch.no_grad():
            assert bridge(generated[:, :length])[0, -1].argmax() == generated[0, length]


def test_it_goes_in_under_the_name_that_the_model_has(monkeypatch):
    bridge, cache = shared_bridge("llama"), DynamicCache()
    model = type(bridge.original_model)

    def before(self, input_ids, past_key_values=None):
        """As up to transformers 5.23."""

    def since(self, input_ids, cache=None):
        """As from 5.24 on."""

    for forward, name in ((before, "past_key_values"), (since, "cache")):
        monkeypatch.setattr(model, "forward", forward)
        assert as_argument(bridge, cache) == {name: cache}


def test_layers_that_hold_nothing_are_passed_over():
    cache, states = DynamicCache(), torch.arange(6.0).view(1, 1, 3, 2)
    cache.update(states, -states, 2)  # layers 0 and 1 stay empty
    shorten(cache, 1)
    assert [cache.get_seq_length(layer) for layer in range(3)] == [0, 0, 2]
    assert torch.equal(cache.layers[2].keys, states[:, :, :2])
