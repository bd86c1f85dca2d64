"""The progress of a piece of work, shown to the user, and reported to the caller that waits.

A function that a caller may wait for runs its loop over `steps`. Inner loops divide their share of
the loop around them. If nobody waits, `steps` only iterates.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from tqdm.auto import tqdm

Item = TypeVar("Item")

_PATIENCE = 2.0  # seconds without a line; most work is done by then
_BETWEEN_LINES = 60.0  # seconds at most; the first lines come sooner


@dataclass
class _Span:
    """The innermost loop's part of the work, as shares from 0 to 1 of the whole."""

    tell: Callable[[float], object]
    low: float = 0.0
    high: float = 1.0


_waiting: ContextVar[_Span | None] = ContextVar("_waiting", default=None)


@contextmanager
def told_to(tell: Callable[[float], object]) -> Iterator[None]:
    """While the block runs in this thread, `tell(share)` is called with the share that is done."""
    before = _waiting.get()
    try:
        _waiting.set(_Span(tell))
        yield
    finally:
        _waiting.set(before)


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


def progress_bar(
    items: Iterable[Any] | None = None, *, shown: bool = True, desc: str, **options: Any
) -> tqdm:
    """A bar of tqdm, or lines if there is neither a terminal nor a notebook.

    A line comes with the first update after two seconds, then each after twice the time, and at
    last one a minute. `options` are those of tqdm.

    Raises `TypeError` if `shown` is a function.
    """
    refuse_function(shown)
    if shown and not bars_are_seen():
        # In the first position, tqdm does not move a cursor between bars; at 0 columns it draws
        # none, and takes no other format.
        columns = None if "bar_format" in options else 0
        options |= {"file": _Lines(), "delay": _PATIENCE, "ncols": columns, "position": 0}
    return tqdm(items, disable=not shown, desc=desc, **options)


def refuse_function(progress: object) -> None:
    """Raise `TypeError` for a function, which readings of one text take and other work does not."""
    if callable(progress):
        raise TypeError(f"progress must be True or False here, got the function {progress!r:.60}")


@contextmanager
def share_shown(desc: str, *, shown: bool) -> Iterator[None]:
    """While the block runs, show the share of its `steps` that is done."""
    if not shown:
        yield
        return
    with (
        progress_bar(
            shown=shown,
            desc=desc,
            total=1.0,
            bar_format="{desc}: {percentage:.0f}% [{elapsed}<{remaining}]",
        ) as bar,
        told_to(lambda share: bar.update(share - bar.n)),
    ):
        yield


def bars_are_seen() -> bool:
    """Whether a bar that overwrites itself is seen as one: in a terminal or a notebook."""
    # A notebook's cells run in a kernel; ipykernel may be imported for other reasons.
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    # A stand-in for a terminal may lack the method, and a closed one refuses to answer.
    in_terminal = False
    with suppress(AttributeError, ValueError):
        in_terminal = sys.stderr.isatty()
    return in_terminal or hasattr(shell, "kernel")


def show_as_done(bar: tqdm) -> None:
    """Have the bar show that all is done, also if the work ended before its total."""
    bar.total = bar.n
    if (container := getattr(bar, "container", None)) is not None:
        container.children[1].max = bar.n  # of the widget in a notebook
    bar.refresh()


def say(line: str) -> None:
    """Print a line to standard error, if there is one."""
    if sys.stderr is not None:  # or it would go to standard output
        with suppress(ValueError):  # of a closed one
            print(line, file=sys.stderr, flush=True)


class _Lines:
    """A file for tqdm that makes lines of some of its updates, and of the last one."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._due = self._begun + _PATIENCE
        self._held = self._printed = ""

    def write(self, text: str) -> None:
        """Keep an update, or print it if a line is due; a newline is the end."""
        self._held = text.strip() or self._held
        now = time.monotonic()
        counted = self._held.rpartition("[")[0]  # without the time and rate
        if counted != self._printed and (now >= self._due or text == "\n"):
            say(self._held)
            self._printed = counted
            self._due = now + min(now - self._begun, _BETWEEN_LINES)

    def flush(self) -> None:
        """Nothing: each line is flushed as it is printed."""
