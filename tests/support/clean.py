"""Whether a bridge was left as it was found."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

_TOKENS = torch.arange(4, 16).reshape(2, 6)


@contextmanager
def left_as_found(bridge: Any) -> Iterator[Any]:
    """Assert on the way out, exception or not, that the block changed nothing in a model.

    Held equal: every hook, forward and configuration of every module, the training flags, the
    `requires_grad` flags, whether parameters have gradients, and the logits, bit by bit.
    """
    state, logits = _state(bridge), _logits(bridge)
    try:
        yield bridge
    finally:
        assert _state(bridge) == state
        torch.testing.assert_close(_logits(bridge), logits, rtol=0, atol=0)


@contextmanager
def hook_refused(bridge: Any, name: str) -> Iterator[None]:
    """Assert that what runs inside refuses a hook by its name, and changes nothing in the model."""
    with (
        left_as_found(bridge),
        bridge.hooks(fwd_hooks=[(name, lambda tensor, hook: 2 * tensor)]),
        pytest.raises(ValueError, match=rf"a hook on {re.escape(name)}, which would not act"),
    ):
        yield


def _state(bridge: Any) -> dict[str, object]:
    state: dict[str, object] = {}
    for root_name, root in (("bridge", bridge), ("inside", _inside(bridge))):
        for name, module in root.named_modules():
            state[f"{root_name} {name}"] = _module_state(module)
        for name, parameter in root.named_parameters():
            state[f"{root_name} {name} requires_grad"] = parameter.requires_grad
            state[f"{root_name} {name} has no gradient"] = parameter.grad is None
    return state


def _inside(bridge: Any) -> nn.Module:
    """The model that a bridge wraps; a `HookedTransformer` wraps none."""
    return getattr(bridge, "original_model", bridge)


def _module_state(module: nn.Module) -> dict[str, object]:
    forward = module.forward
    torch_hooks = [
        hook
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        for hook in hooks.values()
        # Both libraries wire captures of their own into a model, for good, when first asked for
        # its activations. What a user adds through TransformerLens is among `lens_hooks`.
        if hook.__module__.split(".")[0] not in ("transformers", "transformer_lens")
    ]
    lens_hooks = [*module.fwd_hooks, *module.bwd_hooks] if isinstance(module, HookPoint) else []
    return {
        "forward": getattr(forward, "__func__", forward),
        "configuration": id(vars(module).get("config")),
        "training": module.training,
        "torch hooks": torch_hooks,
        "hooks": lens_hooks,
    }


@torch.no_grad()
def _logits(bridge: Any) -> Tensor:
    config = getattr(_inside(bridge), "config", None)
    if getattr(config, "is_encoder_decoder", False):
        return bridge(_TOKENS, decoder_input=_TOKENS)
    return bridge(_TOKENS)
