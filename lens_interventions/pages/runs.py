"""The runs that a page is about."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..experiments import Result, RunDirectoryError, load_result
from ..experiments.engine.run_directory import SETTINGS


@dataclass(frozen=True)
class Runs:
    """Finished runs, and those that are not.

    Attributes:
        results: by directory, in the order found.
        unfinished: directories that hold a run without a result, and why they cannot be read.
    """

    results: dict[Path, Result]
    unfinished: dict[Path, str]


def run_title(directory: Path, result: Result) -> str:
    """The experiment, and the directory where that has another name."""
    name = "" if directory.name == result.experiment else f" ({directory.name})"
    return result.experiment.capitalize() + name


def find_runs(directories: Iterable[str | Path]) -> Runs:
    """Runs in these directories or anywhere below them, in alphabetical order.

    Raises `FileNotFoundError` for a directory that there is not, `ValueError` where there is no
    finished run in any.
    """
    results: dict[Path, Result] = {}
    unfinished: dict[Path, str] = {}
    asked = [Path(directory) for directory in directories]
    for directory in asked:
        if not directory.is_dir():
            raise FileNotFoundError(f"{directory} is not a directory of runs")
        for settings in sorted(directory.rglob(SETTINGS)):
            try:
                results[settings.parent] = load_result(settings.parent)
            except RunDirectoryError as error:
                unfinished[settings.parent] = str(error)
    if not results:
        found = "".join(f"\n  {reason}" for reason in unfinished.values())
        raise ValueError(
            f"no finished run in {', '.join(map(str, asked))}: run an experiment with "
            f"out= (or --out) there first{found}"
        )
    return Runs(results, unfinished)
