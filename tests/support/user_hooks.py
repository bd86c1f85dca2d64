"""Hooks that a user may leave on a bridge, of every kind."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

Change = Callable[..., Tensor]
"""`change(tensor, hook=None)`, the tensor that goes on instead."""


@contextmanager
def permanent_hook(bridge: TransformerBridge, layer: int, change: Change) -> Iterator[None]:
    """On `r[layer]`."""
    point = bridge.hook_dict[f"blocks.{layer}.hook_resid_pre"]
    point.add_perma_hook(change)
    try:
        yield
    finally:
        point.remove_hooks(including_permanent=True)


@contextmanager
def torch_hook(bridge: TransformerBridge, layer: int, change: Change) -> Iterator[None]:
    """The same, on the block below, which returns `r[layer]`."""

    def changed(_block: Any, _args: Any, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    handle = bridge.blocks[layer - 1].register_forward_hook(changed)
    try:
        yield
    finally:
        handle.remove()


LASTING: tuple[Callable[..., AbstractContextManager[None]], ...] = (permanent_hook, torch_hook)
"""Those that `bridge.reset_hooks()` leaves on."""


def push_first(tensor: Tensor, hook: Any = None) -> Tensor:
    """Push the first position: a hook that is made for whole texts."""
    pushed = tensor.clone()
    pushed[:, 0] += 5
    return pushed
