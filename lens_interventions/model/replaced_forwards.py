"""Forwards of single modules, in place of that of their class: the library's own and the user's."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet, ref

from torch import nn
from transformer_lens.model_bridge import supported_architectures

from .kinds import ReadableModel, inner_model
from .restoration import Change
from .user_hooks import modules_of

KERNELS_END = "from transformers 5.25 on, bridge.original_model.use_kernels = False ends that"

_own: WeakSet[Callable[..., Any]] = WeakSet()


@contextmanager
def replaced_forwards(forwards: Sequence[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    """Inside, some modules have other forwards.

    They go into the modules' own dictionaries: setattr on a component of a bridge reaches the
    module that it wraps.
    """
    before = [(vars(module), vars(module).get("forward")) for module, _ in forwards]
    _own.update(forward for _, forward in forwards)

    def put_back() -> None:
        for attributes, replaced in before:
            # An interrupt may have come before it was put there.
            attributes.pop("forward", None)
            if replaced is not None:
                attributes["forward"] = replaced

    change = Change(put_back)
    try:
        for module, forward in forwards:
            vars(module)["forward"] = forward
        yield
    finally:
        change.restore()


def replaced_forward(module: nn.Module) -> Callable[..., Any] | None:
    """What stands in place of the `forward` of a module's class; None where nothing does.

    Nothing does where it is the class's own, bound to the module. transformers 5.25 leaves that on
    each module that could have a kernel and has none on this device.
    """
    forward = vars(module).get("forward")
    bound_to, function = getattr(forward, "__self__", None), getattr(forward, "__func__", None)
    own = bound_to is module and function is type(module).forward
    return None if own else forward


def forwards_of_user(bridge: ReadableModel) -> tuple[ref[Callable[..., Any]], ...]:
    """The functions that others have put in place of the `forward` of single modules.

    Those by which TransformerLens adapts an architecture, such as Falcon, do not count. They are
    given by weak references, which are equal only to those to the same living function.
    """
    return tuple(
        ref(forward)
        for forward in map(replaced_forward, modules_of(bridge))
        if not (forward is None or forward in _own or _adapts(forward))
    )


def _adapts(forward: Callable[..., Any]) -> bool:
    # Not by its `__module__`, which `functools.wraps` takes over from what it wraps.
    defined_in = getattr(forward, "__globals__", {}).get("__name__", "")
    return defined_in.startswith(supported_architectures.__name__)


def has_kernels(bridge: ReadableModel) -> bool:
    """Whether transformers has put kernels in place of the `forward` of some modules.

    It does so by default from 5.25 on, where the device has any. They round otherwise, and those
    made for inference may give no gradients.
    """
    runs = getattr(inner_model(bridge), "use_kernels", False)
    return bool(runs and forwards_of_user(bridge))
