"""Putting back what was changed for a while, whenever the user interrupts."""

import threading
from collections.abc import Callable

# The changes that a thread's call of the library has made and not yet put back. A change outside of
# such a call, as by a `with` block of the user's, is not among them.
_of_thread = threading.local()


class Change:
    """Something that is changed for a while: made before the change, and restored after it.

    `restore` is the rest of a `finally` block, which Python leaves where an interrupt finds it, or
    never enters if one comes as the block begins or ends. What it leaves out is made up for at the
    end of the user's call.
    """

    def __init__(self, put_back: Callable[[], object]) -> None:
        """`put_back` undoes what was changed so far. A second call must change nothing."""
        self._put_back, self._done = put_back, False
        open_changes = getattr(_of_thread, "changes", None)
        if open_changes is not None:
            open_changes.append(self)

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
        open_changes = getattr(_of_thread, "changes", None)
        if open_changes is not None and self in open_changes:
            open_changes.remove(self)


def begin_call() -> bool:
    """Whether a call of the library is the outermost of its thread, which ends by `end_call`."""
    if getattr(_of_thread, "changes", None) is not None:
        return False
    _of_thread.changes = []
    return True


def end_call() -> None:
    """Restore, last first, all changes of the outermost call that have not been restored."""
    try:
        _restore_all(_of_thread.changes)
    except BaseException:
        _restore_all(_of_thread.changes)
        raise
    finally:
        _of_thread.changes = None


def _restore_all(changes: list[Change]) -> None:
    for change in reversed(list(changes)):
        change.restore()
