"""A fingerprint tells weights apart wherever they differ, and nothing else changes it."""

import pytest
import torch

from lens_interventions.model.fingerprint import fingerprint
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
