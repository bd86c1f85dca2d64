"""A fingerprint tells weights apart wherever they differ, and nothing else changes it.

Configs have a hash of their own.
"""

import pytest
import torch
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge

from lens_interventions.model.fingerprint import config_hash, fingerprint
from tests.support.tiny import tiny_bridge


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_value_of_every_parameter_counts(dtype):
    bridge = tiny_bridge("llama", dtype=dtype)
    before = fingerprint(bridge)
    for parameter in bridge.original_model.parameters():
        flat = parameter.data.view(-1)
        for place in {0, len(flat) // 2, len(flat) - 1}:
            value = flat[place].clone()
            flat[place] += 1
            assert fingerprint(bridge) != before
            flat[place] = value
    assert fingerprint(bridge) == before


@pytest.mark.parametrize("shape", [(112, 32), (4096, 64)], ids=["small", "summed"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_exchanged_rows_and_signs_count(shape, dtype):
    bridge = tiny_bridge("llama", dtype=dtype)
    layer = bridge.original_model.get_input_embeddings()
    layer.weight = torch.nn.Parameter(torch.randn(shape, dtype=dtype), requires_grad=False)
    rows, before = layer.weight.data, fingerprint(bridge)
    for pair in ([3, 4], [3, 5], [3, len(rows) - 3]):
        rows[pair] = rows[pair[::-1]]
        assert fingerprint(bridge) != before
        rows[pair] = rows[pair[::-1]]
    rows.neg_()
    assert fingerprint(bridge) != before
    rows.neg_()
    assert fingerprint(bridge) == before


def test_where_a_parameter_lies_in_memory_does_not_count():
    bridge = tiny_bridge("gpt2", dtype=torch.bfloat16)
    before = fingerprint(bridge)
    for parameter in bridge.original_model.parameters():
        # One value further, so that eight bytes no longer begin where an integer may.
        room = torch.empty(parameter.numel() + 1, dtype=parameter.dtype)
        room[1:] = parameter.data.reshape(-1)
        parameter.data = room[1:].view(parameter.shape)
    assert fingerprint(bridge) == before
    for parameter in bridge.original_model.parameters():
        if parameter.ndim == 2:
            parameter.data = parameter.data.T.contiguous().T
    assert fingerprint(bridge) == before


def test_the_last_values_of_an_odd_number_of_them_count():
    bridge = tiny_bridge("llama", dtype=torch.float32)
    layer = bridge.original_model.get_input_embeddings()
    layer.weight = torch.nn.Parameter(torch.randn(16_385, 3), requires_grad=False)
    before = fingerprint(bridge)
    numbers = layer.weight.data.view(-1)
    for place in range(1, 200):
        value = numbers[-place].clone()
        numbers[-place] += 1
        assert fingerprint(bridge) != before
        numbers[-place] = value


@pytest.mark.parametrize(
    ("architecture", "changed"),
    [
        ("llama", {"rms_norm_eps": 0.1}),
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}),
        ("gpt2", {"layer_norm_epsilon": 0.1}),
    ],
)
def test_a_config_that_changes_what_is_computed_has_another_hash(architecture, changed):
    bridge, other = tiny_bridge(architecture), tiny_bridge(architecture, **changed)
    tokens = torch.arange(12)[None]
    assert not torch.allclose(bridge(tokens), other(tokens))
    assert fingerprint(bridge) == fingerprint(other)
    assert config_hash(bridge) != config_hash(other)


def test_names_precision_and_outputs_are_not_hashed():
    bridge, half = tiny_bridge("llama"), tiny_bridge("llama", dtype=torch.bfloat16)
    expected = config_hash(bridge)
    assert config_hash(half) == expected
    config = bridge.original_model.config
    config.use_cache, config.output_hidden_states, config.name_or_path = False, True, "elsewhere"
    assert config_hash(bridge) == expected


def test_a_network_without_a_config_of_transformers_has_a_hash():
    config = {"d_model": 16, "d_head": 8, "n_heads": 2, "n_layers": 1, "d_mlp": 24, "n_ctx": 8}
    config |= {"d_vocab": 20, "act_fn": "gelu", "eps": 1e-5}
    first, again, other = (
        config_hash(TransformerBridge.boot_native(TransformerBridgeConfig(**config | changed)))
        for changed in ({}, {}, {"eps": 0.1})
    )
    assert first == again != other
