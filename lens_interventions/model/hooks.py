"""Hooks of a bridge: set aside for a while, or put on for a while."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from transformer_lens.hook_points import HookPoint


@contextmanager
def without_hooks(hook_points: Iterable[HookPoint]) -> Iterator[None]:
    """Run modules without the hooks that a user has put on them; the hooks come back after.

    Permanent hooks stay: some architectures are adapted by them.
    """
    points = [point for point in hook_points if has_temporary_hooks(point)]
    saved = [(point, point._forward_hooks, point._backward_hooks) for point in points]
    try:
        for point, *directions in saved:
            permanent = {h.hook.id for h in (*point.fwd_hooks, *point.bwd_hooks) if h.is_permanent}
            point._forward_hooks, point._backward_hooks = (
                OrderedDict((key, fn) for key, fn in hooks.items() if key in permanent)
                for hooks in directions
            )
        yield
    finally:
        for point, forward_hooks, backward_hooks in saved:
            point._forward_hooks, point._backward_hooks = forward_hooks, backward_hooks


def has_temporary_hooks(point: HookPoint) -> bool:
    """Whether a hook is on that `reset_hooks` would take off."""
    return any(not handle.is_permanent for handle in (*point.fwd_hooks, *point.bwd_hooks))


# A level that no hook context of TransformerLens has, so that only hooks made here are removed.
_LEVEL = -1


@contextmanager
def temporary_hooks(hooks: Sequence[tuple[HookPoint, Callable[..., Any]]]) -> Iterator[None]:
    """Hooks for the duration. `TransformerBridge.hooks` looks up names for over a millisecond."""
    try:
        for point, hook_fn in hooks:
            point.add_hook(hook_fn, level=_LEVEL)
        yield
    finally:
        for point, _ in hooks:
            point.remove_hooks("fwd", level=_LEVEL)
