"""Running only some of a model's blocks: the others stop the run or hand their input through."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.exceptions import StopAtLayerException

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


class BlockRange:
    """Runs a bridge up to a block, and from it on."""

    def __init__(self, bridge: TransformerBridge, layer: int) -> None:
        self._bridge, self._layer = bridge, layer
        # Whether blocks return tuples, as some architectures' do; seen in the first run below.
        self._as_tuple = False

    @contextmanager
    def below(self) -> Iterator[None]:
        """Inside, calling the bridge returns `r[layer]`, before the hooks at that point."""
        blocks = list(self._bridge.blocks)

        def stop(*args: Any, **kwargs: Any) -> None:
            raise StopAtLayerException(_hidden_states(args, kwargs))

        def look(_module: nn.Module, _args: tuple, output: Any) -> None:
            self._as_tuple = isinstance(output, tuple)

        handle = blocks[self._layer - 1].register_forward_hook(look)
        try:
            with replaced_forwards([(blocks[self._layer], stop)]):
                yield
        finally:
            handle.remove()

    @contextmanager
    def above(self, resid: Float[Tensor, "batch pos d_model"]) -> Iterator[None]:
        """Inside, block `layer` gets `resid`, and the blocks below it do nothing.

        Call it after a run below.
        """

        def hand_through(*args: Any, **kwargs: Any) -> Any:
            hidden_states = _hidden_states(args, kwargs)
            return (hidden_states,) if self._as_tuple else hidden_states

        def hand_over(*_args: Any, **_kwargs: Any) -> Any:
            return (resid,) if self._as_tuple else resid

        below = list(self._bridge.blocks)[: self._layer]
        stand_ins = [hand_through] * (self._layer - 1) + [hand_over]
        with replaced_forwards(list(zip(below, stand_ins, strict=True))):
            yield


def _hidden_states(args: tuple, kwargs: dict[str, Any]) -> Any:
    return args[0] if args else kwargs["hidden_states"]
