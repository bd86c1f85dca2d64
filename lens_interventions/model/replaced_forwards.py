"""Forwards of single modules, in place of that of their class: the library's own and the user's."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet, ref

from torch import nn

from .kinds import ReadableModel
from .restoration import Change
from .user_hooks import modules_of

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


def forwards_of_user(bridge: ReadableModel) -> tuple[ref[Callable[..., Any]], ...]:
    """The functions that others have put in place of the `forward` of single modules.

    They are given by weak references, which are equal only to those to the same living function.
    """
    found = (vars(module).get("forward") for module in modules_of(bridge))
    return tuple(ref(forward) for forward in found if forward is not None and forward not in _own)
