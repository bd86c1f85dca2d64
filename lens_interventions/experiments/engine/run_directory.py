"""A run on disk: settings, rows of every finished unit, and one process at a time.

settings.json            what is measured, on which model, with which versions
rows/TABLE/UNIT.parquet  written when the unit is finished, whole or not at all
files/TABLE/UNIT.safetensors   what a unit keeps beside its rows, and how far it has come
result.json, tables/, figures/   the analysis, when all units are there
"""

import itertools
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from ..._files import UNFINISHED, require_writable
from ...model.user_warnings import warn_user
from .json_values import differences, digest
from .row_files import DamagedFileError, joined, read_rows, write_rows
from .run_header import SETTINGS, RunDirectoryError, difference, read_header, write_json
from .work_units import Unit

_LOCK, _HOLDER = ".lock", ".holder.json"


@dataclass(frozen=True)
class RunDirectory:
    """A run directory that this process holds; `held_directory` makes it.

    Attributes:
        path: the path of the directory.
        run: the digest of its settings, which is stamped on every file of rows.
    """

    path: Path
    run: str

    def write_rows(self, unit: Unit, rows: pd.DataFrame) -> None:
        """Write the rows of a finished unit, atomically."""
        target = self._file(unit)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_rows(target, rows, {"run": self.run, "unit": unit.digest, "key": unit.key})

    def read_rows(self, unit: Unit) -> pd.DataFrame | None:
        """The rows of a unit; None if it has not been finished.

        Raises `RunDirectoryError` for a file that is damaged or belongs to another unit.
        """
        file = self._file(unit)
        if not file.exists():
            return None
        rows, stamp = _read(file)
        if stamp["run"] != self.run or stamp["unit"] != unit.digest:
            raise RunDirectoryError(
                f"{file} holds what another unit measured, or this one with other parameters (has "
                "a text file changed?): remove it to measure it again, or choose a new directory"
            )
        return rows

    def file_of(self, unit: Unit) -> Path:
        """The path at which a unit may keep a file, in a folder that exists."""
        file = unit_file(self.path, unit.table, unit.name)
        file.parent.mkdir(parents=True, exist_ok=True)
        return file

    def set_damaged_aside(self) -> None:
        """Rename damaged files, with a warning, so that their units are measured again.

        Raises `RunDirectoryError` for a file that belongs to another run.
        """
        for file in files_of_rows(self.path):
            try:
                _, stamp = read_rows(file)
            except DamagedFileError as error:
                _set_aside(file, str(error), "is measured again")
                continue
            if stamp["run"] != self.run:
                raise RunDirectoryError(f"{file} belongs to another run: remove it")
        for file in sorted((self.path / "files").rglob("*.safetensors")):
            try:
                with safe_open(file, "np"):
                    pass
            except SafetensorError as error:
                measured = self.path / "rows" / file.parent.name / f"{file.stem}.parquet"
                then = "keeps its rows; remove them to make the file again"
                _set_aside(
                    file,
                    f"{file} is damaged ({error})",
                    then if measured.exists() else "begins anew",
                )

    def _file(self, unit: Unit) -> Path:
        return self.path / "rows" / unit.table / f"{unit.name}.parquet"


@contextmanager
def held_directory(
    path: Path, header: Mapping[str, Any], presets: Mapping[str, Any]
) -> Iterator[RunDirectory]:
    """Open a directory for a new or a continued run, and keep other processes out.

    `presets` are settings that have a name.

    Raises `RunDirectoryError` if another process holds the directory, if it contains another run
    that has measured something (the message says what kind of run, or which settings differ) or
    anything else, or if its settings are damaged. If the file of settings is gone, it is written
    again, provided that all rows are of a run with these.
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
    except OSError as error:
        raise RunDirectoryError(f"{path / _LOCK} cannot be locked ({error}): remove it") from error
    try:
        _write_holder(path)
        _remove_unfinished(path)
        _agree(path / SETTINGS, header, presets)
        yield RunDirectory(path, digest(header))
    finally:
        (path / _HOLDER).unlink(missing_ok=True)
        lock.release()


def unit_file(path: Path, table: str, name: str) -> Path:
    """The file that the unit `name` of a table keeps in the run's directory `path`."""
    return path / "files" / table / f"{name}.safetensors"


def require_run_directory(path: Path) -> None:
    """Check that a path is a run's directory, or can become one because it is empty or can be made.

    Raises `RunDirectoryError` for a file, for a directory that holds anything but a run, and for
    one that cannot be made or written in.
    """
    if path.exists() and not path.is_dir():
        raise RunDirectoryError(f"{path} is a file: choose a directory")
    foreign = [] if not path.exists() else [p.name for p in path.iterdir() if p.name[0] != "."]
    if foreign and SETTINGS not in foreign and not _holds_rows(path):
        raise RunDirectoryError(
            f"{path} is not a run directory: it holds {', '.join(sorted(foreign)[:3])} and no "
            f"{SETTINGS}; choose a new or empty directory"
        )
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    try:
        require_writable(there / _LOCK)
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be made: {error}") from error


def _holds_rows(path: Path) -> bool:
    """Whether there are rows that a run has measured, though its settings are lost."""
    for file in path.glob("rows/*/*.parquet"):
        with suppress(DamagedFileError):
            return "run" in read_rows(file)[1]
    return False


def files_of_rows(path: Path) -> list[Path]:
    """The files of rows in a run's directory, by table and unit.

    Raises `RunDirectoryError` if there is a file instead of a folder.
    """
    tables = path / "rows"
    if not tables.exists():
        return []
    _require_folder(tables)
    folders = sorted(folder for folder in tables.iterdir() if folder.name[0] != ".")
    for folder in folders:
        _require_folder(folder)
    return [file for folder in folders for file in sorted(folder.glob("*.parquet"))]


def _require_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise RunDirectoryError(f"{path} is not a directory: remove it")


def _set_aside(file: Path, why: str, then: str) -> None:
    aside = _free_name(file)
    file.rename(aside)
    warn_user(f"{why}: it is now {aside.name}, and {file.parent.name}/{file.stem} {then}")


def verify_rows(path: Path) -> None:
    """Check every file of rows in a run's directory.

    Raises `RunDirectoryError` if one is damaged.
    """
    for file in files_of_rows(path):
        _read(file)


def read_tables(path: str | Path) -> dict[str, pd.DataFrame]:
    """All rows of a run, finished or not, by table and in the order of the units' names.

    `path` is the run's directory.

    Raises `RunDirectoryError` if the directory is not that of a run, or if a file is damaged.
    """
    path = Path(path)
    read_header(path)
    parts: dict[str, list[pd.DataFrame]] = {}
    for file in files_of_rows(path):
        parts.setdefault(file.parent.name, []).append(_read(file)[0])
    return {table: joined(rows) for table, rows in parts.items()}


def _agree(file: Path, header: Mapping[str, Any], presets: Mapping[str, Any]) -> None:
    if not file.exists():
        _require_rows_of(file.parent, digest(header))
        write_json(file, header)
        return
    there = read_header(file.parent)
    if not differences(header, there):
        return
    if not any(each.is_file() and each.name[0] != "." for each in file.parent.rglob("*/*")):
        # The run stopped before it measured anything, perhaps at a mistake in these settings.
        write_json(file, header)
        return
    raise RunDirectoryError(difference(file.parent, header, there, presets))


def _require_rows_of(path: Path, run: str) -> None:
    """Raise `RunDirectoryError` if a directory without settings has rows of another run."""
    for file in files_of_rows(path):
        with suppress(DamagedFileError):  # which is set aside later
            if read_rows(file)[1]["run"] != run:
                raise RunDirectoryError(
                    f"{path} has lost its {SETTINGS}, and {file} was measured with other settings, "
                    "on another model or with other versions: choose another directory"
                )


def _read(file: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    try:
        return read_rows(file)
    except DamagedFileError as error:
        raise RunDirectoryError(
            f"{error}: run the experiment with this directory again, and this unit is measured "
            "again"
        ) from error


def _free_name(file: Path) -> Path:
    """A new name for a file that is set aside."""
    names = (file.with_name(f"{file.name}.damaged{number or ''}") for number in itertools.count())
    return next(name for name in names if not name.exists())


def _remove_unfinished(path: Path) -> None:
    # The lock is held, so no process is writing the files that a killed process left unfinished.
    # One that asks for the lock may try whether it can write, and remove what it tried with. A
    # directory inside may be another run, with a lock of its own.
    for leftover in path.rglob(UNFINISHED):
        inside = leftover.relative_to(path).parents[:-1]
        if not any((path / directory / _LOCK).exists() for directory in inside):
            leftover.unlink(missing_ok=True)


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
