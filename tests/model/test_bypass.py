"""A model without the bridge's components computes the same, where no hook is on them."""

import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook
from transformer_lens.model_bridge import TransformerBridge

import lens_interventions as li
from lens_interventions.model.bypass import Unwrapping
from tests.support.architectures import LENS_ARCHITECTURES
from tests.support.clean import left_as_found
from tests.support.tiny import shared_bridge, tiny_model, tiny_tokenizer


@pytest.mark.parametrize("arch", LENS_ARCHITECTURES)
def test_unwrapped_models_are_the_same(arch):
    bridge = shared_bridge(arch)
    tokens = torch.tensor([[5, 17, 4, 44, 17, 60, 9, 31, 8]])
    expected = bridge(tokens)
    with left_as_found(bridge):
        with Unwrapping(bridge)():
            unwrapped = bridge(tokens)
        # The modules of transformers do the same in another order, in float64; norms in float32.
        torch.testing.assert_close(unwrapped, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("arch", ["gpt2", "gpt_neox", "llama"])
def test_a_model_in_two_bridges_runs_in_both(arch):
    """TransformerLens wraps the components of the first bridge into those of the second."""
    model, tokenizer = tiny_model(arch, dtype=torch.float32), tiny_tokenizer()
    options = {"hf_model": model, "tokenizer": tokenizer, "device": "cpu"}
    first = TransformerBridge.boot_transformers(f"tiny-{arch}", **options)
    tokens = torch.tensor([[5, 17, 4, 44]])
    expected = li.generate(first, tokens, max_new_tokens=4, stop_at_eos=False).tokens
    second = TransformerBridge.boot_transformers(f"tiny-{arch}", **options)
    for bridge in (first, second):
        found = li.generate(bridge, tokens, max_new_tokens=4, stop_at_eos=False).tokens
        assert torch.equal(found, expected)


def test_only_blocks_without_hooks_are_unwrapped():
    bridge = shared_bridge("llama", torch.float32)
    block = type(bridge.blocks[0])
    listening = [("blocks.1.attn.hook_pattern", lambda _pattern, hook: None)]
    with bridge.hooks(fwd_hooks=listening), Unwrapping(bridge)():
        assert [type(b) is block for b in bridge.blocks] == [False, True, False]
    assert all(type(b) is block for b in bridge.blocks)


def test_hooks_that_come_later_are_seen():
    bridge = shared_bridge("llama", torch.float32)
    block, unwrapped = type(bridge.blocks[0]), Unwrapping(bridge)
    tokens, seen = torch.tensor([[5, 17, 4]]), []

    def kept():
        with unwrapped():
            bridge(tokens)
            return [type(b) is block for b in bridge.blocks]

    assert kept() == [False, False, False]
    with bridge.hooks(fwd_hooks=[("blocks.2.hook_mlp_out", lambda *_, hook: seen.append(hook))]):
        assert kept() == [False, False, True]
    assert len(seen) == 1
    handle = bridge.blocks[0].mlp.register_forward_pre_hook(lambda *_: seen.append("pre"))
    try:
        assert kept() == [True, False, False]
    finally:
        handle.remove()
    assert seen[1:] == ["pre"]


def without_mlp(bridge, tokens):
    with bridge.hooks(fwd_hooks=[("blocks.1.hook_mlp_out", lambda out, hook: 0 * out)]):
        return bridge(tokens)


@torch.no_grad()
def test_forwards_that_were_replaced_are_called():
    bridge, tokens = shared_bridge("llama", torch.float32), torch.tensor([[5, 17, 4]])
    point = bridge.blocks[1].hook_mlp_out
    vars(point)["forward"] = torch.zeros_like
    try:
        with Unwrapping(bridge)():
            replaced = bridge(tokens)
    finally:
        del vars(point)["forward"]
    # The modules of transformers do the same in another order, in float32.
    torch.testing.assert_close(replaced, without_mlp(bridge, tokens), rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("part", ["block", "mlp"])
def test_forwards_that_are_replaced_later_are_called(part):
    bridge, tokens = shared_bridge("llama", torch.float32), torch.tensor([[5, 17, 4]])
    unwrapped, block = Unwrapping(bridge), bridge.blocks[1]
    with unwrapped():
        assert bridge.blocks[1] is not block
        usual = bridge(tokens)
    attributes = vars(block if part == "block" else block.mlp)
    attributes["forward"] = lambda resid, **_: torch.zeros_like(resid)
    try:
        with unwrapped():
            assert bridge.blocks[1] is block
            replaced = bridge(tokens)
        expected = bridge(tokens)
    finally:
        del attributes["forward"]
    # The modules of transformers do the same in another order, in float32.
    torch.testing.assert_close(replaced, expected, rtol=0, atol=1e-4)
    assert not torch.allclose(usual, replaced, atol=1e-2)


@torch.no_grad()
def test_hooks_of_torch_on_hook_points_and_on_all_modules_are_called():
    bridge, tokens, calls = shared_bridge("llama", torch.float32), torch.tensor([[5, 17, 4]]), []
    unwrapped = Unwrapping(bridge)
    handle = bridge.blocks[1].hook_mlp_out.register_forward_hook(lambda *_: calls.append("point"))
    with unwrapped():
        bridge(tokens)
    handle.remove()
    assert calls == ["point"]
    handle = register_module_forward_hook(lambda module, *_: calls.append(type(module).__name__))
    with unwrapped():
        bridge(tokens)
    handle.remove()
    assert calls.count("LlamaAttention") == 3
