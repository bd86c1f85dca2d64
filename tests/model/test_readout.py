"""The readout is the model's own."""

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
