"""Putting back what was changed for a while, though the user interrupts halfway."""

from collections.abc import Callable


def restore(put_back: Callable[[], object]) -> None:
    """Call `put_back`, and once more from its beginning if an interrupt stops it halfway.

    It is the rest of a `finally` block, which Python leaves where an interrupt finds it. A second
    call of `put_back` after a first must change nothing. Only an interrupt in the very instant in
    which this function is entered finds nothing put back.
    """
    try:
        put_back()
    except BaseException:
        put_back()
        raise
