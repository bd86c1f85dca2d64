"""Hooks of the user are told from those by which libraries adapt and listen to a model."""

import pytest
import torch

from lens_interventions.model.user_hooks import has_user_hooks, lasting_hooks
from tests.support.tiny import shared_bridge
from tests.support.user_hooks import LASTING, push_first

TOKENS = torch.tensor([[5, 9, 33, 71, 20]])


@pytest.mark.parametrize("bridge", ["llama", "opt", "falcon", "gemma3_text"], indirect=True)
def test_hooks_by_which_libraries_adapt_a_model_are_not_the_users(bridge):
    bridge.run_with_cache(TOKENS)
    assert lasting_hooks(bridge) == ()
    assert not has_user_hooks(bridge)


def test_nor_those_by_which_transformers_listens():
    model = shared_bridge("llama").original_model
    model(TOKENS, output_hidden_states=True)
    assert any(module._forward_hooks for module in model.modules())
    assert lasting_hooks(shared_bridge("llama")) == ()


@pytest.mark.parametrize("put_on", LASTING)
def test_hooks_of_the_user_that_last_are_told_apart(put_on):
    bridge, seen = shared_bridge("llama"), []
    for _ in range(2):
        with put_on(bridge, 1, push_first):
            assert has_user_hooks(bridge)
            seen += lasting_hooks(bridge)
    assert len(set(seen)) == 2
    with bridge.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", push_first)]):
        assert has_user_hooks(bridge)
        assert lasting_hooks(bridge) == ()
    model = bridge.original_model
    for register in (
        model.register_forward_pre_hook,
        model.register_forward_hook,
        model.register_full_backward_hook,
    ):
        handle = register(lambda *_: None)
        assert lasting_hooks(bridge) == (handle.id,)
        handle.remove()
