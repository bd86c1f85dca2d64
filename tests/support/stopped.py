"""Work that Ctrl-C stops in the middle, and what is left to do when it goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pandas.testing import assert_frame_equal

from lens_interventions.experiments import Result


@contextmanager
def counted(owner: Any, name: str) -> Iterator[list[None]]:
    """A list that gets an entry at each call of a function or method of `owner`."""
    function, calls = getattr(owner, name), []

    def counts(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return function(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(owner, name, counts)
        yield calls


@contextmanager
def stopped(owner: Any, name: str, *, call: int) -> Iterator[None]:
    """Expects that Ctrl-C stops what is done inside, at this call of a function, from 0."""
    function, numbers = getattr(owner, name), iter(range(1000))

    def stops(*args: Any, **kwargs: Any) -> Any:
        if next(numbers) == call:
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(owner, name, stops)
        with pytest.raises(KeyboardInterrupt):
            yield


def assert_same_tables(one: Result, other: Result) -> None:
    """Equal bit by bit."""
    assert list(one.tables) == list(other.tables)
    for name, table in one.tables.items():
        assert_frame_equal(table, other.tables[name], check_exact=True)
