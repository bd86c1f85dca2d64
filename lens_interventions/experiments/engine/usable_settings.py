"""Settings of a run, checked before anything is measured."""

import json
from dataclasses import asdict, fields, is_dataclass
from typing import Any, get_origin, get_type_hints

from .json_values import plain_number


def require_usable(settings: Any) -> None:
    """Check what would otherwise be found when everything is measured, or never.

    Fields called `smallest_...` are margins of verdicts.

    Raises `TypeError` if settings are no dataclass, for a field that JSON cannot hold, or for a
    string where a tuple is asked for, whose letters would be read one by one; `ValueError` for a
    number that is not finite, or a margin that is not above 0.
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
        if name.startswith("smallest_") and not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return plain_number(value)
