"""Answers to arguments of another type than expected."""

from typing import SupportsIndex


def require_whole_numbers(**given: object) -> None:
    """Raise `TypeError` for an argument that is not an integer of Python, numpy or torch."""
    for name, value in given.items():
        if not isinstance(value, SupportsIndex):
            raise TypeError(f"{name} must be a whole number, got {value!r:.60}")
