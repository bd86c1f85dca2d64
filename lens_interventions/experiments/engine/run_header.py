"""The header of a run on disk: what is measured, on which model, with which versions."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..._files import write_text
from .json_values import differences

FORMAT = "lens_interventions.run/1"
SETTINGS = "settings.json"
_HEADER = ("experiment", "settings", "model", "versions")
_LISTED = 8  # settings that a message names


class RunDirectoryError(RuntimeError):
    """A run directory cannot be used; the message says why."""


def write_json(target: Path, values: Any) -> None:
    """Write JSON that people can read, atomically."""
    write_text(target, json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_header(path: Path) -> dict[str, Any]:
    """Read the settings file of a run.

    Raises `RunDirectoryError` for a directory without this file, or if the file is damaged or has
    another format.
    """
    file = path / SETTINGS
    try:
        header = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunDirectoryError(f"{path} is not a run directory: it has no {SETTINGS}") from error
    except (OSError, RecursionError, ValueError) as error:
        again = "remove it, and the run with the same settings writes it again and keeps its rows"
        mend = again if (path / "rows").is_dir() else "choose a new directory"
        raise RunDirectoryError(f"{file} is damaged ({error}): {mend}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise RunDirectoryError(f"{file} does not say {FORMAT!r}: it is not from this library")
    if missing := [name for name in _HEADER if name not in header]:
        raise RunDirectoryError(f"{file} is damaged: it lacks {', '.join(missing)}")
    return header


def difference(
    path: Path, header: Mapping[str, Any], there: Mapping[str, Any], presets: Mapping[str, Any]
) -> str:
    """What to say of a directory whose header, `there`, is not that of the run to be made.

    `presets` are settings that have a name.
    """
    here, held = _kind(header, presets), _kind(there, presets)
    if here != held:
        shown = [0, *(i for i in (1, 2) if here[i] != held[i])]
        said, asked = (" ".join(words[i] for i in shown) for words in (held, here))
        return f"{path} holds {said}; this is {asked}: choose another directory"
    differing = differences(header, there)
    listed = [f"\n  {line}" for line in differing[:_LISTED]]
    if len(differing) > _LISTED:
        listed.append(f"\n  and {len(differing) - _LISTED} more")
    return (
        f"{path} holds {held[0]} with other settings; choose another directory, or "
        f"these settings:{''.join(listed)}"
    )


def _kind(header: Mapping[str, Any], presets: Mapping[str, Any]) -> tuple[str, str, str]:
    """The kind of run, its model and its versions, in words."""
    named = [name for name, values in presets.items() if values == header.get("settings")]
    model, versions = header.get("model", {}), header.get("versions", {})
    weights, config = (str(model.get(name))[:8] for name in ("weights_sha256", "config_hash"))
    return (
        f"a {' '.join([*named, 'run'])} of {header.get('experiment')}",
        f"on {model.get('name')} ({model.get('dtype')}, {model.get('device')}, weights {weights}, "
        f"config {config})",
        "with " + ", ".join(f"{name} {version}" for name, version in versions.items()),
    )
