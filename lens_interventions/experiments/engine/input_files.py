"""Files that the units of a run read, which must be the same from its start to its end."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from ..._files import sha256

_NAMES_FILE = "names a file that units read"


def file_field() -> Any:
    """A field of settings for the path of a file that units read; its default is None."""
    return field(default=None, metadata={_NAMES_FILE: True})


@dataclass(frozen=True)
class InputFiles:
    """The files that units read, as they were when the run was started or continued.

    Attributes:
        paths: their paths by name. A file that the settings name is called by its path.
        hashes: their SHA-256 by name.
    """

    paths: Mapping[str, str]
    hashes: Mapping[str, str]

    @classmethod
    def of(cls, settings: Any, others: Mapping[str, str] | None = None) -> "InputFiles":
        """The files in every `file_field` of a dataclass and of the dataclasses in it, and others.

        `others` has the paths of files that no setting names, by a name for each.

        Raises `FileNotFoundError` for a path without a file.
        """
        paths = {path: path for path in _paths(settings)} | dict(others or {})
        return cls(paths, {name: _sha256(path, file_version(path)) for name, path in paths.items()})

    def require_unchanged(self) -> None:
        """Raise `RuntimeError` for a file that has other bytes now."""
        for name, path in self.paths.items():
            if _sha256(path, file_version(path)) != self.hashes[name]:
                raise RuntimeError(
                    f"{path} was overwritten during the run that reads it: put the old file back "
                    "to continue, or choose another directory"
                )


Version = tuple[int, int, int]


def file_version(path: str) -> Version:
    """Which file it is, when it was written, and its size: a key for what was read from it.

    Raises `FileNotFoundError` if there is no file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}, which the run reads: put it there")
    status = Path(path).stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _paths(settings: Any) -> list[str]:
    found = []
    for entry in fields(settings):
        value = getattr(settings, entry.name)
        if is_dataclass(value):
            found += _paths(value)
        elif value is not None and _NAMES_FILE in entry.metadata:
            found.append(value)
    return found


@functools.lru_cache(maxsize=8)  # it is asked for after every unit
def _sha256(path: str, _version: Version) -> str:
    return sha256(path)
