"""Settings of other libraries that hold for the whole process, changed for a while."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class SharedSetting:
    """A setting that all threads share.

    It has another value while any thread is in a `with` block of `changed`, and its own again when
    the last of them leaves, in whatever order they came.
    """

    def __init__(self, get: Callable[[], Any], put: Callable[[Any], object], other: Any) -> None:
        """The functions that read and write the setting, and the other value."""
        self._get, self._put, self._other = get, put, other
        self._inside, self._own = 0, None
        self._changing = threading.Lock()

    @contextmanager
    def changed(self) -> Iterator[None]:
        """Inside, the setting has its other value."""
        with self._changing:
            if not self._inside:
                self._own = self._get()
                self._put(self._other)
            self._inside += 1
        try:
            yield
        finally:
            with self._changing:
                self._inside -= 1
                if not self._inside:
                    self._put(self._own)
