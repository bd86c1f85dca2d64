"""The residual stream of a text."""

import pytest
import torch

from lens_interventions.model.residuals import residuals
from lens_interventions.model.tokens import token_batch
from tests.support.clean import left_as_found
from tests.support.tiny import shared_bridge

TOKENS = torch.tensor([[5, 9, 33, 71, 20]])


def test_an_interrupted_reading_leaves_the_bridge_as_it_was():
    bridge = shared_bridge("llama")

    def interrupt(tensor, hook):
        raise KeyboardInterrupt

    with left_as_found(bridge), bridge.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", interrupt)]):
        with pytest.raises(KeyboardInterrupt):
            residuals(bridge, token_batch(bridge, TOKENS), ["0_pre", "final_post"])
        assert len(bridge.hook_dict["blocks.0.hook_resid_pre"].fwd_hooks) == 0
