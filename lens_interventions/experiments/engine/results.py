"""The results of an experiment: tables, verdicts and figures, kept as small files."""

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..._files import atomic_file, sha256, write_text
from ..._summary import summary
from ...measures.intervals import Interval
from ...measures.verdicts import Verdict
from .run_directory import held_directory, verify_rows
from .run_header import RunDirectoryError, read_header, write_json

if TYPE_CHECKING:
    import plotly.graph_objects as go

Tables = Mapping[str, pd.DataFrame]
Figures = Mapping[str, "go.Figure"]

_RESULT = "result.json"


@dataclass(frozen=True)
class Finding:
    """A question, and the verdict on it.

    Attributes:
        question: the question as a reader would ask it.
        verdict: its outcome and the interval that was judged.
        method: what was compared, and on which material.
        figure: the name of the figure that shows it; empty for none.
    """

    question: str
    verdict: Verdict
    method: str
    figure: str

    def __str__(self) -> str:
        return f"{self.question} {self.verdict}"


@dataclass(frozen=True)
class Analysis:
    """The analysis of a run's rows.

    Attributes:
        tables: the tables by name; `Result.to_dataframe` returns the first.
        verdicts: one per question.
        draw: a function from the tables to the figures, by name.
    """

    tables: Tables
    verdicts: tuple[Finding, ...]
    draw: Callable[[Tables], Figures]


@dataclass(frozen=True)
class Result:
    """The outcome of a run.

    Attributes:
        header: experiment, settings, model and versions, as in settings.json.
        tables: the tables by name, the main one first.
        verdicts: one per question.
    """

    header: Mapping[str, Any]
    tables: Tables
    verdicts: tuple[Finding, ...]
    _draw: Callable[[Tables], Figures] = field(repr=False, compare=False)

    __repr__ = summary

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return str(self.header["experiment"])

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of the run, as JSON values."""
        return self.header["settings"]

    def to_dataframe(self) -> pd.DataFrame:
        """The main table.

        Raises `ValueError` if the analysis makes none.
        """
        if not self.tables:
            raise ValueError(f"the analysis of {self.experiment} makes no tables")
        return next(iter(self.tables.values()))

    def figures(self) -> Figures:
        """Plotly figures by name; those of a loaded result are read from its directory now.

        Raises `FileNotFoundError` if they are no longer there.
        """
        return self._draw(self.tables)

    def save(self, directory: str | Path) -> None:
        """Write settings.json, result.json, tables/ and figures/, for `load_result` to read.

        The rows of each unit are not in a result: a run that is to go on later has `out=`.

        Raises `RunDirectoryError` if the directory holds anything but this run, is in use, is
        damaged or cannot be written; `ValueError` if a finding names a figure that is not drawn;
        `FileNotFoundError` if the figures of a loaded result are gone.
        """
        with held_directory(Path(directory), self.header, presets={}) as held:
            verify_rows(held.path)
            write_result(self, held.path)


def write_result(result: Result, directory: Path) -> None:
    """Write result.json, tables/NAME.parquet and figures/NAME.json into a held directory.

    Raises `ValueError` if a finding names a figure that is not drawn.
    """
    figures = result.figures()
    for finding in result.verdicts:
        if finding.figure and finding.figure not in figures:
            raise ValueError(
                f"the finding {finding.question!r} names the figure {finding.figure!r}, and "
                f"the analysis draws {', '.join(figures) or 'none'}"
            )
    for folder in ("tables", "figures"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    for name, table in result.tables.items():
        with atomic_file(directory / "tables" / f"{name}.parquet") as temporary:
            table.to_parquet(temporary, index=False, compression="zstd")
    for name, figure in figures.items():
        write_text(directory / "figures" / f"{name}.json", figure.to_json())
    verdicts = [_without_nan(asdict(finding)) for finding in result.verdicts]
    files = [f"tables/{name}.parquet" for name in result.tables]
    files += [f"figures/{name}.json" for name in figures]
    contents = {
        "tables": list(result.tables),
        "figures": list(figures),
        "verdicts": verdicts,
        "sha256": {file: sha256(directory / file) for file in files},
    }
    write_json(directory / _RESULT, contents)


def load_result(directory: str | Path) -> Result:
    """Load a finished run from its settings.json, result.json, tables/ and figures/.

    The checksums of tables and figures are verified, and those of the rows if they are there.

    Raises `RunDirectoryError` for a directory that is not a run's, for an unfinished run, and for a
    damaged file.
    """
    directory = Path(directory)
    header = read_header(directory)
    verify_rows(directory)
    result_file = directory / _RESULT
    if not result_file.exists():
        raise RunDirectoryError(
            f"{directory} is not finished: run the experiment with this directory again, and it "
            "will continue where it stopped"
        )
    try:
        contents = json.loads(result_file.read_text(encoding="utf-8"))
        for name, expected in contents["sha256"].items():
            if sha256(directory / name) != expected:
                raise ValueError(f"the checksum of {name} does not match")
        tables = {
            name: pd.read_parquet(directory / "tables" / f"{name}.parquet")
            for name in contents["tables"]
        }
        findings = tuple(map(_finding, contents["verdicts"]))
        draw = functools.partial(_stored_figures, directory.absolute(), list(contents["figures"]))
    except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError) as error:
        raise RunDirectoryError(
            f"{directory} is damaged ({error}): run the experiment with this directory again, and "
            "its result is written again"
        ) from error
    return Result(header, tables, findings, draw)


def _stored_figures(directory: Path, names: Sequence[str], _tables: Tables) -> Figures:
    """The figures of a finished run by name, as they were drawn; no table is needed."""
    import plotly.io

    files = {name: directory / "figures" / f"{name}.json" for name in names}
    return {
        name: plotly.io.from_json(file.read_text(encoding="utf-8")) for name, file in files.items()
    }


def _finding(values: Mapping[str, Any]) -> Finding:
    said = dict(values["verdict"])
    ends = {
        name: math.nan if said["interval"][name] is None else said["interval"][name]
        for name in ("estimate", "low", "high")
    }
    said |= {
        "interval": Interval(**{**said["interval"], **ends}),
        "not_ahead_of": tuple(said["not_ahead_of"]),
    }
    verdict = Verdict(**said)
    return Finding(**{**values, "verdict": verdict})


def _without_nan(value: Any) -> Any:
    """Replace nan, which JSON does not have, by None."""
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
