"""The readout is the model's own."""

import pytest
import torch

from lens_interventions.model.readout import readout
from lens_interventions.model.residuals import residuals
from lens_interventions.model.tokens import token_batch
from tests.support.tiny import shared_bridge

TOKENS = torch.tensor([[5, 9, 33, 71, 20]])


def test_readout_of_the_last_point_is_the_model(bridge):
    (last,) = residuals(bridge, token_batch(bridge, TOKENS), ["final_post"])
    torch.testing.assert_close(readout(bridge)(last), bridge(TOKENS), rtol=0, atol=1e-9)


def test_a_soft_cap_is_not_linear():
    assert readout(shared_bridge("gemma2")).scale is None
    assert readout(shared_bridge("cohere")).scale == 0.5
    assert readout(shared_bridge("granite")).scale == 0.5
    assert readout(shared_bridge("llama")).scale == 1


@pytest.mark.parametrize("arch", ["gpt2", "gpt_neox", "llama", "gemma3_text"])
def test_directions_of_tokens_are_gradients_of_their_logits(arch):
    """Against the mean logit, and across the residual, whose size the norm divides by."""
    read = readout(shared_bridge(arch))
    residual = torch.randn(32, dtype=torch.float64, requires_grad=True)
    logits = read(residual)
    with torch.no_grad():
        directions = read.token_directions(read.weight[:9])
        lengths = read.unit_directions(read.weight).norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
    centred = residual.detach()
    if arch in ("gpt2", "gpt_neox"):
        centred = centred - centred.mean()
    unit = centred / centred.norm()
    for token, direction in enumerate(directions):
        rise = logits[token] - logits.mean()
        (gradient,) = torch.autograd.grad(rise, residual, retain_graph=True)
        across = [vector - (vector @ unit) * unit for vector in (gradient, direction)]
        # The norm keeps an epsilon for residuals of no size.
        scale = centred.norm() / 32**0.5
        torch.testing.assert_close(across[0] * scale, across[1], rtol=0, atol=1e-4)
