"""Settings of a run, checked before anything is measured."""

import json
from dataclasses import asdict, fields, is_dataclass
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .json_values import plain_number


def require_usable(settings: Any) -> None:
    """Check what would otherwise be found when everything is measured, or never.

    Fields called `smallest_...` are margins of verdicts.

    Raises `TypeError` if settings are no dataclass, for a field that JSON cannot hold or whose
    value does not have the annotated type, such as a string where a tuple is asked for, whose
    letters would be read one by one; `ValueError` for a number that is not finite, or a margin that
    is not above 0.
    """
    if not is_dataclass(settings) or isinstance(settings, type):
        raise TypeError(f"settings must be an instance of a dataclass, got {settings!r:.60}")
    kinds = get_type_hints(type(settings))
    for field in fields(settings):
        name, value = field.name, getattr(settings, field.name)
        if isinstance(value, str) and get_origin(kinds[name]) is tuple:
            raise TypeError(f"{name} must be a tuple, got {value!r}: write ({value!r},)")
        if is_dataclass(value):
            require_usable(value)
            continue
        try:
            json.dumps(value, allow_nan=False, default=_plain)
        except TypeError as error:
            raise TypeError(f"{name} is {value!r:.60}: {error}") from error
        except ValueError as error:
            raise ValueError(f"{name} must be finite, got {value!r:.60}") from error
        if not _fits(value, kinds[name]):
            raise TypeError(f"{name} must be of the type {_said(kinds[name])}, got {value!r:.60}")
        if name.startswith("smallest_") and not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value has the annotated type; whole numbers pass for numbers, lists for tuples."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            return False
        of_each = parts[:1] * len(value) if parts[-1] is ... else parts
        return len(value) == len(of_each) and all(map(_fits, value, of_each))
    if kind in (int, float):
        number = Integral if kind is int else Real
        return isinstance(value, number) and not isinstance(value, bool)
    return isinstance(value, kind)


def _said(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return plain_number(value)
