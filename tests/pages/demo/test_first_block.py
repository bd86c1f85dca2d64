"""What the first block does to the stream, with context and without."""

import numpy as np
import pytest
import torch

from lens_interventions.pages.demo import first_block as module
from lens_interventions.pages.demo.first_block import distances, first_block
from lens_interventions.pages.demo.measured_model import MeasuredModel
from tests.support.tiny import random_tokens, shared_bridge


@torch.no_grad()
@pytest.mark.parametrize("bridge", ["llama", "gemma2"], indirect=True)
def test_alone_is_what_a_text_of_one_token_gives(bridge):
    """Rotary models have no positions in the stream: a token alone is a text of that token."""
    tokens = random_tokens(1, 9)
    _, cache = bridge.run_with_cache(tokens)
    _, single = bridge.run_with_cache(tokens.T)
    alone = single["blocks.1.hook_resid_pre"].transpose(0, 1)
    final = bridge(tokens)[0, 1:].log_softmax(-1)
    streams = (cache["blocks.0.hook_resid_pre"], alone, cache["blocks.1.hook_resid_pre"])
    places = [bridge.unembed(bridge.ln_final(stream))[0, 1:] for stream in streams]
    cap = getattr(bridge.original_model.config, "final_logit_softcapping", None)
    if cap:
        places = [cap * torch.tanh(logits / cap) for logits in places]
    expected = [
        [float((r.exp() * (r - p.log_softmax(-1))).sum()) for p in places]
        for r in (final, places[0].log_softmax(-1))
    ]
    np.testing.assert_allclose(distances(bridge, tokens), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("alone", "still", "holds", "share"), [(80, 10, True, "25%"), (20, 30, False, "100%")]
)
def test_it_is_context_if_the_input_is_still_there_without(monkeypatch, alone, still, holds, share):
    def made_up(_bridge, tokens):
        return np.array([[100.0, alone, 20.0], [0.0, still, 25.0]]) * (tokens.shape[1] - 1)

    monkeypatch.setattr(module, "distances", made_up)
    falls, near = first_block(MeasuredModel(shared_bridge("llama"))).conditions
    assert (falls.holds, near.holds) == (holds, holds)
    assert share in falls.measured


def test_a_block_that_does_not_lower_the_distance_is_no_jump(monkeypatch):
    def made_up(_bridge, tokens):
        return np.array([[5.0, 4.0, 5.0], [0.0, 1.0, 2.0]]) * (tokens.shape[1] - 1)

    monkeypatch.setattr(module, "distances", made_up)
    falls, _ = first_block(MeasuredModel(shared_bridge("llama"))).conditions
    assert not falls.holds
    assert falls.measured == "it does not fall across the first block with context either"
