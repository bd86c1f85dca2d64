"""A model whose RMS norms run in one call computes the same, and comes back."""

import pytest
import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from lens_interventions.model.fused_norms import fused_norms
from tests.support.clean import left_as_found
from tests.support.tiny import shared_bridge

TOKENS = torch.arange(24).reshape(4, 6)


def n_fused(model):
    return sum("forward" in vars(m) for m in model.modules() if type(m).__name__.endswith("Norm"))


@pytest.mark.parametrize("arch", ["llama", "gemma3_text", "olmo2", "qwen3"])
@torch.no_grad()
def test_logits_are_the_same(arch):
    bridge = shared_bridge(arch, torch.float32)
    expected = bridge(TOKENS)
    with left_as_found(bridge):
        with fused_norms(bridge.original_model):
            assert n_fused(bridge.original_model) > 6
            found = bridge(TOKENS)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


class CentredRMSNorm(LlamaRMSNorm):
    def forward(self, hidden_states):
        return super().forward(hidden_states - hidden_states.mean(-1, keepdim=True))


class OtherEpsilonRMSNorm(LlamaRMSNorm):
    def __init__(self, size):
        super().__init__(size, eps=1e-5)
        self.eps, self.variance_epsilon = 1e-5, 1e-6

    def forward(self, hidden_states):
        self.variance_epsilon, told = self.eps, self.variance_epsilon
        try:
            return super().forward(hidden_states)
        finally:
            self.variance_epsilon = told


@pytest.mark.parametrize("kind", [CentredRMSNorm, OtherEpsilonRMSNorm])
def test_a_norm_that_does_something_else_is_left_alone(kind):
    model = nn.Sequential(LlamaRMSNorm(16), kind(16), nn.LayerNorm(16))
    with fused_norms(model):
        assert ["forward" in vars(module) for module in model] == [True, False, False]


def test_norms_of_other_precision_are_left_alone():
    model = nn.Sequential(LlamaRMSNorm(16).double())
    with fused_norms(model):
        assert not n_fused(model)
