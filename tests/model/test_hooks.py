"""Hooks set aside and put on."""

import torch

from lens_interventions.model.hooks import capture, change_layers, keep, stop, without_hooks
from tests.support.clean import left_as_found
from tests.support.tiny import shared_bridge, tiny_bridge

TOKENS = torch.tensor([[5, 9, 33, 71, 20]])


def test_hooks_are_off_only_within():
    bridge = tiny_bridge("llama")
    seen = []
    bridge.add_hook("blocks.1.hook_resid_pre", lambda _, hook: seen.append(hook.name))
    with left_as_found(bridge):
        seen.clear()
        with without_hooks(bridge.hook_points()):
            bridge(TOKENS)
        assert seen == []
        bridge(TOKENS)
        assert len(seen) == 1


def test_permanent_hooks_stay_on():
    """OPT's bridge reshapes activations by permanent hooks of its own."""
    bridge = shared_bridge("opt")
    with without_hooks(bridge.hook_points()):
        without = bridge(TOKENS)
    torch.testing.assert_close(without, bridge(TOKENS), rtol=0, atol=0)


def test_permanent_hooks_of_gradients_stay_on_where_a_temporary_one_is_set_aside():
    bridge, seen = tiny_bridge("llama"), []
    name = "blocks.1.hook_resid_pre"
    bridge.add_hook(name, lambda _, hook: seen.append("temporary"), dir="bwd")
    bridge.add_hook(name, lambda _, hook: seen.append("permanent"), dir="bwd", is_permanent=True)
    with torch.enable_grad(), without_hooks(bridge.hook_points()):
        bridge(TOKENS).sum().backward()
    assert seen == ["permanent"]


def test_a_capture_runs_no_further_than_it_has_to():
    bridge = shared_bridge("llama")
    _, cache = bridge.run_with_cache(TOKENS)
    names = ["blocks.1.hook_resid_pre", "blocks.0.hook_resid_pre"]
    above = []
    with left_as_found(bridge):
        handle = bridge.blocks[1].register_forward_hook(lambda *_: above.append(1))
        try:
            captured = capture(bridge, TOKENS, names)
        finally:
            handle.remove()
    for tensor, name in zip(captured, names, strict=True):
        torch.testing.assert_close(tensor, cache[name], rtol=0, atol=0)
    assert above == []


def test_layers_are_changed_each_in_its_own_way():
    bridge = shared_bridge("llama")
    kept = {}
    hooks = [
        *change_layers([1, 2], lambda resid, *, layer: 0 * resid + layer),
        ("blocks.1.hook_resid_pre", keep(kept, "all")),
        ("blocks.2.hook_resid_pre", keep(kept, "last", lambda resid: resid[:, -1])),
        ("blocks.2.hook_resid_pre", stop),
    ]
    with left_as_found(bridge), bridge.hooks(fwd_hooks=hooks):
        stopped = bridge(TOKENS)
    assert (kept["all"] == 1).all()
    assert (kept["last"] == 2).all()
    assert kept["last"].shape == (1, 32)
    assert torch.equal(stopped, torch.full((1, 5, 32), 2.0).double())
