"""Running only some of a model's blocks: the others stop the run or hand their input through."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.exceptions import StopAtLayerException

# A level that no hook context of TransformerLens has, so that only hooks made here are removed.
_LEVEL = -1

# Whether the blocks of a bridge return tuples, as those of some architectures do.
_returns_tuple: WeakKeyDictionary[TransformerBridge, bool] = WeakKeyDictionary()


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


@contextmanager
def replaced_forwards(forwards: Sequence[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    """Other forwards for some modules, for the duration.

    They go into the modules' own dictionaries: setattr on a component of a bridge reaches the
    module that it wraps.
    """
    before = [(vars(module), vars(module).get("forward")) for module, _ in forwards]
    try:
        for module, forward in forwards:
            vars(module)["forward"] = forward
        yield
    finally:
        for attributes, replaced in before:
            del attributes["forward"]
            if replaced is not None:
                attributes["forward"] = replaced


@contextmanager
def only_blocks_below(bridge: TransformerBridge, layer: int) -> Iterator[None]:
    """Inside, calling the bridge returns `r[layer]`, before the hooks at that point."""

    def stop(*args: Any, **kwargs: Any) -> None:
        raise StopAtLayerException(_hidden_states(args, kwargs))

    with replaced_forwards([(bridge.blocks[layer], stop)]):
        yield


@contextmanager
def only_blocks_from(
    bridge: TransformerBridge, layer: int, resid: Float[Tensor, "batch pos d_model"] | None = None
) -> Iterator[None]:
    """Inside, the blocks below `layer` do nothing, and block `layer` gets `resid`.

    Without `resid`, which needs a block below, it gets what the bridge's `start_at_layer` injects.
    """
    as_tuple = layer > 0 and _blocks_return_tuples(bridge)

    def hand_through(*args: Any, **kwargs: Any) -> Any:
        hidden_states = _hidden_states(args, kwargs)
        return (hidden_states,) if as_tuple else hidden_states

    def hand_over(*_args: Any, **_kwargs: Any) -> Any:
        return (resid,) if as_tuple else resid

    stand_ins = [hand_through] * layer
    if resid is not None:
        stand_ins[-1] = hand_over
    with replaced_forwards(list(zip(list(bridge.blocks)[:layer], stand_ins, strict=True))):
        yield


def _blocks_return_tuples(bridge: TransformerBridge) -> bool:
    if bridge not in _returns_tuple:
        outputs: list[object] = []

        def look(_module: nn.Module, _args: tuple, output: object) -> None:
            outputs.append(output)
            raise StopAtLayerException(torch.empty(0))

        handle = bridge.blocks[0].register_forward_hook(look)
        try:
            with torch.no_grad():
                bridge(torch.zeros(1, 1, dtype=torch.long, device=bridge.cfg.device))
        finally:
            handle.remove()
        _returns_tuple[bridge] = isinstance(outputs[0], tuple)
    return _returns_tuple[bridge]


def _hidden_states(args: tuple, kwargs: dict[str, Any]) -> Any:
    return args[0] if args else kwargs["hidden_states"]
