"""The progress of a piece of work, reported from its inner loops to the caller that waits.

A function that a caller may wait for runs its loop over `steps`. Inner loops divide their share of
the loop around them. If nobody waits, `steps` only iterates.
"""

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass
class _Span:
    """The innermost loop's part of the work, as shares from 0 to 1 of the whole."""

    tell: Callable[[float], None]
    low: float = 0.0
    high: float = 1.0


_waiting: ContextVar[_Span | None] = ContextVar("_waiting", default=None)


@contextmanager
def told_to(tell: Callable[[float], None]) -> Iterator[None]:
    """While the block runs in this thread, `tell(share)` is called with the share that is done."""
    token = _waiting.set(_Span(tell))
    try:
        yield
    finally:
        _waiting.reset(token)


def steps(items: Iterable[Item], total: int | None = None) -> Iterator[Item]:
    """Iterate over `items` as `total` equal steps of the work around them, by default all of them.

    Raises `TypeError` if their number is neither given nor known.
    """
    span = _waiting.get()
    if span is None:
        yield from items
        return
    if total is None:
        if not isinstance(items, Sized):
            raise TypeError("the number of steps is not known: give total=")
        total = len(items)
    low, high = span.low, span.high
    width = (high - low) / max(total, 1)
    try:
        for done, item in enumerate(items):
            span.low = min(low + done * width, high)
            span.high = min(span.low + width, high)
            span.tell(span.low)
            yield item
        span.tell(high)
    finally:
        span.low, span.high = low, high
