"""Arguments of another type than expected: what becomes of them, or the error."""

import operator
from numbers import Real
from typing import Any


def require_instance(name: str, value: object, kind: type) -> None:
    """Raise `TypeError` for an argument that is not of this class."""
    if not isinstance(value, kind):
        raise TypeError(
            f"{name} must be of the class {kind.__name__}, got {type(value).__name__} {value!r:.60}"
        )


def require_numbers(**given: object) -> None:
    """Raise `TypeError` for an argument that is not a real number of Python or numpy."""
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name} must be a number, got {type(value).__name__} {value!r:.60}")


def require_whole_numbers(**given: object) -> None:
    """Raise `TypeError` for an argument that is not an integer of Python, numpy or torch."""
    value: Any
    for name, value in given.items():
        if isinstance(value, bool):
            raise TypeError(f"{name} must be a whole number, got {value}")
        try:
            operator.index(value)
        except TypeError as error:
            raise TypeError(f"{name} must be a whole number, got {value!r:.60}") from error


def whole_numbers(given: Any) -> list[int]:
    """The integers of a list, a tensor or an array.

    Raises `TypeError` for anything else. Bools are no integers, since a mask would be read as the
    numbers 0 and 1.
    """
    numbers = [python_numbers(each) for each in python_numbers(given)]
    for number in numbers:
        require_whole_numbers(entry=number)
    return [operator.index(each) for each in numbers]


def require_counts(*, least: int = 1, **given: Any) -> None:
    """Check whole numbers that may not be below `least`.

    Raises `TypeError` for one that is not a whole number, and `ValueError` for one below `least`.
    """
    require_whole_numbers(**given)
    for name, count in given.items():
        if count < least:
            raise ValueError(f"{name} must be at least {least}, got {count}")


def require_counts_or_none(**given: Any) -> None:
    """Check whole numbers that may not be below 1, or None, which stands for a default.

    Raises errors as `require_counts` does.
    """
    require_counts(**{name: count for name, count in given.items() if count is not None})


def python_numbers(value: Any) -> Any:
    """The numbers of a tensor or array, in lists; all else as it is.

    Both have an `__index__` whatever their shape, so they pass for one integer. One of several
    dimensions, such as the `[1, 1]` that `to_tokens` makes of one token, becomes one list.
    """
    if not hasattr(value, "tolist"):
        return value
    several = getattr(value, "ndim", 1) > 1
    return (value.reshape(-1) if several else value).tolist()
