"""A run on disk: settings, rows of every finished unit, and one process at a time.

settings.json            what is measured, on which model, with which versions
rows/TABLE/UNIT.parquet  written when the unit is finished, whole or not at all
result.json, tables/, figures/   the analysis, when all units are there
"""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from filelock import FileLock, Timeout

from ..._files import UNFINISHED, atomic_file, write_text
from .json_values import differences, digest
from .work_units import Unit

FORMAT = "lens_interventions.run/1"
SETTINGS = "settings.json"
_LOCK, _HOLDER, _STAMP = ".lock", ".holder.json", b"lens_interventions"


class RunDirectoryError(RuntimeError):
    """A run directory that cannot be used, and why."""


@dataclass(frozen=True)
class RunDirectory:
    """A run directory that this process holds; `held_directory` makes it.

    Attributes:
        path: of the directory.
        run: digest of its settings, stamped on every file of rows.
    """

    path: Path
    run: str

    def write_rows(self, unit: Unit, rows: pd.DataFrame) -> None:
        """Keep the rows of a finished unit, atomically."""
        stamp = {"run": self.run, "unit": unit.digest, "key": unit.key}
        table = pa.Table.from_pandas(rows, preserve_index=False)
        metadata = {**(table.schema.metadata or {}), _STAMP: json.dumps(stamp).encode()}
        target = self._file(unit)
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(target) as temporary:
            pq.write_table(table.replace_schema_metadata(metadata), temporary)

    def read_rows(self, unit: Unit) -> pd.DataFrame | None:
        """The rows of a unit; None if it has not been finished.

        Raises `RunDirectoryError` for a file that is damaged or of another unit.
        """
        file = self._file(unit)
        if not file.exists():
            return None
        table, stamp = _stamped(file)
        if stamp["run"] != self.run or stamp["unit"] != unit.digest:
            raise RunDirectoryError(
                f"{file} holds what another unit measured, or this one with other parameters (has "
                "a text file changed?): remove it to measure it again, or choose a new directory"
            )
        return table.to_pandas()

    def check_rows(self) -> None:
        """Check every file of rows.

        Raises `RunDirectoryError` for one that is damaged or of another run.
        """
        for file in sorted((self.path / "rows").glob("*/*.parquet")):
            if _stamped(file)[1]["run"] != self.run:
                raise RunDirectoryError(f"{file} belongs to another run: remove it")

    def _file(self, unit: Unit) -> Path:
        return self.path / "rows" / unit.table / f"{unit.name}.parquet"


@contextmanager
def held_directory(path: Path, header: Mapping[str, Any]) -> Iterator[RunDirectory]:
    """Open a directory for a run, new or to be continued, and keep other processes out.

    Raises `RunDirectoryError` if another process holds the directory, if it holds another run or
    anything else (the message lists the settings that differ), or if a file in it is damaged.
    """
    require_run_directory(path)
    path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise RunDirectoryError(
            f"{path} is being written by {_holder(path)}: wait for it, or choose another directory"
        ) from error
    try:
        _write_holder(path)
        _remove_unfinished(path)
        _agree(path / SETTINGS, header)
        directory = RunDirectory(path, digest(header))
        directory.check_rows()
        yield directory
    finally:
        (path / _HOLDER).unlink(missing_ok=True)
        lock.release()


def require_run_directory(path: Path) -> None:
    """Check that a path is a run's directory, or can become one: it is empty or does not exist.

    Raises `RunDirectoryError` for a file, and for a directory that holds anything but a run.
    """
    if path.exists() and not path.is_dir():
        raise RunDirectoryError(f"{path} is a file: choose a directory")
    foreign = [] if not path.exists() else [p.name for p in path.iterdir() if p.name[0] != "."]
    if foreign and SETTINGS not in foreign:
        raise RunDirectoryError(
            f"{path} is not a run directory: it holds {', '.join(sorted(foreign)[:3])} and no "
            f"{SETTINGS}; choose a new or empty directory"
        )


def write_json(target: Path, values: Any) -> None:
    """Write JSON that people can read, atomically."""
    write_text(target, json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_header(path: Path) -> dict[str, Any]:
    """Read the settings file of a run.

    Raises `RunDirectoryError` for a directory without one, and for one that is damaged or of
    another format.
    """
    file = path / SETTINGS
    try:
        header = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunDirectoryError(f"{path} is not a run directory: it has no {SETTINGS}") from error
    except ValueError as error:
        raise RunDirectoryError(f"{file} is damaged ({error}): choose a new directory") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise RunDirectoryError(f"{file} does not say {FORMAT!r}: it is not of this library")
    return header


def read_tables(path: Path) -> dict[str, pd.DataFrame]:
    """All rows of a run, finished or not, by table and in the order of the units' names.

    `path` is the run's directory.

    Raises `RunDirectoryError` for a directory that is not a run's, and for a damaged file.
    """
    read_header(path)
    folders = sorted(folder for folder in (path / "rows").glob("*") if folder.is_dir())
    return {
        folder.name: pd.concat(
            [_stamped(file)[0].to_pandas() for file in sorted(folder.glob("*.parquet"))],
            ignore_index=True,
        )
        for folder in folders
        if any(folder.glob("*.parquet"))
    }


def _agree(file: Path, header: Mapping[str, Any]) -> None:
    if not file.exists():
        write_json(file, header)
        return
    differing = differences(header, read_header(file.parent))
    if differing:
        listed = "".join(f"\n  {line}" for line in differing)
        raise RunDirectoryError(
            f"{file.parent} holds a run with other settings; choose another directory, or these "
            f"settings:{listed}"
        )


def _stamped(file: Path) -> tuple[pa.Table, dict[str, str]]:
    try:
        table = pq.read_table(file)
        stamp = json.loads(table.schema.metadata[_STAMP])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise RunDirectoryError(
            f"{file} is damaged or not of this library ({error}): remove it to measure it again"
        ) from error
    return table, stamp


def _remove_unfinished(path: Path) -> None:
    # The lock is held, so nobody is writing what a killed process left half done.
    for leftover in path.rglob(UNFINISHED):
        leftover.unlink()


def _write_holder(path: Path) -> None:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    holder = {"process": os.getpid(), "machine": socket.gethostname(), "since": since}
    write_json(path / _HOLDER, holder)


def _holder(path: Path) -> str:
    try:
        holder = json.loads((path / _HOLDER).read_text())
    except (FileNotFoundError, ValueError):  # it has just begun, or is just done
        return "another process"
    return f"process {holder['process']} on {holder['machine']} since {holder['since']}"
