"""Settings of a run as JSON: frozen dataclasses of plain values and tuples."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

import numpy as np

T = TypeVar("T")

Values = Mapping[str, Any]
"""JSON values by name, such as a write or a sequence among the parameters of a unit."""

_NOTHING = object()


def to_values(settings: Any) -> dict[str, Any]:
    """Turn a dataclass into JSON values: tuples become lists, dataclasses become objects.

    Raises `TypeError` for anything else, or a field that JSON cannot hold.
    """
    return json.loads(canonical_json(asdict(settings)))


def from_values(kind: type[T], values: Mapping[str, Any]) -> T:
    """Rebuild a dataclass of type `kind` from the JSON values of `to_values`.

    Raises `ValueError` for missing or unknown fields, and names them.
    """
    assert is_dataclass(kind)
    expected = {field.name for field in fields(kind)}
    if expected != set(values):
        missing, unknown = sorted(expected - set(values)), sorted(set(values) - expected)
        raise ValueError(
            f"{kind.__name__}: missing {missing or 'none'}, unknown {unknown or 'none'}"
        )
    kinds = get_type_hints(kind)
    return kind(
        **{
            name: from_values(kinds[name], value) if is_dataclass(kinds[name]) else _tuples(value)
            for name, value in values.items()
        }
    )


def canonical_json(values: Any) -> str:
    """JSON that is the same for the same values, whatever the order of their keys."""
    return json.dumps(values, sort_keys=True, ensure_ascii=False, default=plain_number)


def plain_number(value: Any) -> Any:
    """The number in a numpy scalar, which JSON does not know.

    Raises `TypeError` for anything else.
    """
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"JSON cannot hold a {type(value).__name__}")


def digest(values: Any) -> str:
    """SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(values).encode()).hexdigest()


def differences(here: Any, there: Any, name: str = "") -> list[str]:
    """List where two JSON values differ, such as `settings.layers: [3] here, [4] there`.

    There are differences exactly where the canonical JSON differs, and with it the digest: so 1 and
    1.0 are different, and so are null and no value at all.
    """
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        return [
            line
            for key in sorted({*here, *there})
            for line in differences(
                here.get(key, _NOTHING), there.get(key, _NOTHING), f"{name}.{key}".lstrip(".")
            )
        ]
    said_here, said_there = (
        "nothing" if value is _NOTHING else canonical_json(value) for value in (here, there)
    )
    return [] if said_here == said_there else [f"{name}: {said_here} here, {said_there} there"]


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
