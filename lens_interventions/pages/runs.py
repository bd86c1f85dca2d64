"""The runs that a page shows."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..experiments import Result, RunDirectoryError, load_result
from ..experiments.engine.run_header import SETTINGS


@dataclass(frozen=True)
class Runs:
    """Finished runs, and those that cannot be read, such as unfinished ones.

    Attributes:
        results: the results of finished runs, by directory.
        unreadable: why a run cannot be read, by directory.
    """

    results: dict[Path, Result]
    unreadable: dict[Path, str]


def run_titles(results: Mapping[Path, Result]) -> dict[Path, str]:
    """A title for each run: its experiment, and its directory and model if they are needed.

    The directory is named if it is not called as the experiment. If several runs would have one
    title, the model is named, and then the whole path.
    """
    titles = {}
    for directory, result in results.items():
        name = "" if directory.name == result.experiment else f" ({directory.name})"
        titles[directory] = result.experiment.replace("_", " ").capitalize() + name
    models = {directory: result.header["model"]["name"] for directory, result in results.items()}
    return _told_apart(_told_apart(titles, models), {directory: directory for directory in titles})


def _told_apart(titles: Mapping[Path, str], by: Mapping[Path, object]) -> dict[Path, str]:
    times = Counter(titles.values())
    return {
        directory: title if times[title] == 1 else f"{title}, {by[directory]}"
        for directory, title in titles.items()
    }


def find_runs(directories: Iterable[str | Path]) -> Runs:
    """Runs in these directories or anywhere below them, in alphabetical order.

    Raises `FileNotFoundError` if a directory does not exist; `ValueError` if none of them contains
    a finished run.
    """
    results: dict[Path, Result] = {}
    unreadable: dict[Path, str] = {}
    asked = [Path(directory) for directory in directories]
    for directory in asked:
        if not directory.is_dir():
            raise FileNotFoundError(f"there is no directory {directory}")
        for settings in sorted(directory.rglob(SETTINGS)):
            try:
                results[settings.parent] = load_result(settings.parent)
            except RunDirectoryError as error:
                unreadable[settings.parent] = str(error)
    if not results:
        found = "".join(f"\n  {reason}" for reason in unreadable.values())
        raise ValueError(
            f"no finished run in {', '.join(map(str, asked))}: first run an experiment with "
            f"out= (or --out) there{found}"
        )
    return Runs(results, unreadable)
