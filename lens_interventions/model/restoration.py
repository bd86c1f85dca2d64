"""Putting back what was changed for a while, whenever the user interrupts."""

import threading
from collections.abc import Callable

# The changes that a thread's call of the library has made and not yet put back.
_of_thread = threading.local()


class Change:
    """Something that is changed for a while: made before the change, and restored after it.

    `restore` is the rest of a `finally` block, which Python leaves where an interrupt finds it, or
    never enters if one comes as the block begins or ends. What it leaves out is made up for at the
    end of the user's call.
    """

    def __init__(self, put_back: Callable[[], object], *, of_user: bool = False) -> None:
        """Note a change that is about to be made.

        **Arguments:**

        - `put_back`: undoes what was changed so far. A second call must change nothing.
        - `of_user`: the user ends it, by a `with` block that may outlive a call of the library.
        """
        self._put_back, self._done = put_back, False
        if not of_user and call_is_open():
            _of_thread.changes.append(self)

    def restore(self) -> None:
        """Put back what was changed, once; an interrupt halfway begins it again."""
        if self._done:
            return
        try:
            self._put_back()
        except BaseException:
            self._put_back()
            raise
        self.keep()

    def keep(self) -> None:
        """Let things be as they are."""
        self._done = True
        if call_is_open() and self in _of_thread.changes:
            _of_thread.changes.remove(self)


def call_is_open() -> bool:
    """Whether this thread is inside a call of the library that notes changes."""
    return getattr(_of_thread, "changes", None) is not None


def begin_call() -> None:
    """Note changes from here on; `end_call` must follow."""
    _of_thread.changes = []


def end_call() -> None:
    """Restore, last first, all changes that have been noted and not been restored."""
    try:
        _restore_all()
    except BaseException:
        _restore_all()
        raise
    finally:
        _of_thread.changes = None


def _restore_all() -> None:
    for change in reversed(list(_of_thread.changes or ())):
        change.restore()
