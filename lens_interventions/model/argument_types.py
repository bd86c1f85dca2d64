"""Answers to arguments of another type than expected."""

import operator
from typing import Any


def require_instance(name: str, value: object, kind: type) -> None:
    """Raise `TypeError` for an argument that is not of this class."""
    if not isinstance(value, kind):
        raise TypeError(
            f"{name} must be of the class {kind.__name__}, got {type(value).__name__} {value!r:.60}"
        )


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
