"""Running an experiment: stages of units, which are kept on disk, and then the analysis."""

import importlib.metadata
import platform
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ... import __version__
from ..._progress import refuse_function
from ...materials import docstring_versions
from ...model.alterations import alteration
from ...model.argument_types import require_instance
from .input_files import InputFiles
from .json_values import to_values
from .model_source import Model, ModelSource, model_header
from .results import Analysis, Result, Tables, write_result
from .row_files import joined
from .run_directory import RunDirectory, files_of_rows, held_directory
from .run_header import FORMAT, RunDirectoryError
from .stage_progress import StageProgress
from .usable_settings import require_usable
from .work_units import Unit, forget_model, measured

Stage = Callable[[TransformerBridge, Any, Tables], Sequence[Unit]]


@dataclass(frozen=True)
class Experiment:
    """A plan of measurements and their analysis, which needs only a model to be run.

    Attributes:
        name: its name, such as "copying".
        settings: a frozen dataclass of JSON values and tuples. The path of a file that units read
            is an `input_files.file_field`. Fields called `smallest_...` are margins of verdicts.
        stages: the stages by name, in order. Each is called with the bridge, the settings and the
            rows of the stages before it, and returns its units, so a later stage can depend on the
            measurements of an earlier one. The same arguments must give the same units.
        analyse: makes the `Analysis` from the settings and all rows, by table.
        presets: settings that have a name, which messages use for a run with these settings.
        files: the paths of files that units read and no setting names, by a name for each. A run is
            not continued with other bytes in them.
    """

    name: str
    settings: Any
    stages: Mapping[str, Stage]
    analyse: Callable[[Any, Tables], Analysis]
    presets: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def run(
    experiment: Experiment,
    model: Model = None,
    *,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> Result:
    """Measure the units that have not been measured, and then analyse all rows.

    **Arguments:**

    - `experiment`: the plan of measurements and their analysis.
    - `model`: a bridge; a name or directory for `load_model`, by default the embedded model; or a
        function that returns a bridge. With an executor of other processes, it must not be a
        bridge.
    - `out`: the directory of the run. A run that was stopped continues from its finished units and
        ends with the same numbers. Units whose files are damaged are named in a warning and
        measured again. Without `out`, only the result is kept.
    - `executor`: a `concurrent.futures.Executor` for the units, such as a process pool or
        `distributed.Client(...).get_executor()`, which is not shut down here; by default they run
        in this process. If a unit fails, those that have begun are finished and kept before its
        error is passed on. Only this process writes rows. The numbers do not depend on the process
        that measures them, up to the rounding of float sums on other processors or with other
        numbers of threads.
    - `progress`: show a bar with the time left, stage by stage, or lines if there is no terminal.

    Raises `RunDirectoryError` for a directory that is in use, is damaged or belongs to another run;
    `ValueError` for two units with the same name, hooks on the bridge (permanent ones only with
    `out`) or, with `out`, another forward of a module or `torch.autocast`; `TypeError` or
    `ValueError` for settings that `usable_settings.require_usable` refuses, or what is no executor;
    `FileNotFoundError` for a file that units read and that is not there, and `RuntimeError` if it
    is overwritten during the run. Errors of loading the model and of measuring are passed on; those
    of measuring have the unit's name as a note, and `KeyboardInterrupt` has a note that says what
    is kept in `out`.
    """
    require_usable(experiment.settings)
    refuse_function(progress)
    if executor is not None:
        require_instance("executor", executor, Executor)
    source = ModelSource(model)
    bridge = source.bridge()
    if out is not None and (altered := alteration(bridge)):
        raise ValueError(
            f"{altered}, which the settings of a run cannot record: undo that first, or leave out "
            "the directory"
        )
    of_model = model_header(bridge)
    inputs = InputFiles.of(experiment.settings, experiment.files)
    header = _header(experiment, of_model, inputs)
    presets = {name: to_values(values) for name, values in experiment.presets.items()}
    with ExitStack() as stack:
        stack.callback(forget_model)
        if out is None:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="run-")))
        else:
            path = Path(out)
        directory = stack.enter_context(held_directory(path, header, presets))
        directory.set_damaged_aside()
        rows: dict[str, list[pd.DataFrame]] = {}
        planned: list[Unit] = []
        try:
            for name, stage in experiment.stages.items():
                with StageProgress(f"{experiment.name}, {name}" if progress else None) as shown:
                    units = stage(bridge, experiment.settings, _tables(rows))
                    planned += units
                    _require_distinct(planned)
                    weights = of_model["weights_sha256"]
                    finished = _complete(units, source, directory, executor, weights, inputs, shown)
                for unit, measured_rows in finished:
                    rows.setdefault(unit.table, []).append(measured_rows)
            with StageProgress(f"{experiment.name}, analysis" if progress else None):
                found = experiment.analyse(experiment.settings, _tables(rows))
                result = Result(header, found.tables, found.verdicts, found.draw)
                if out is not None:
                    write_result(result, path)
        except KeyboardInterrupt as stop:
            if out is not None:
                stop.add_note(_kept_units(path, len(planned)))
            raise
    return result


def _header(experiment: Experiment, model: Mapping[str, Any], inputs: InputFiles) -> dict[str, Any]:
    """What settings.json says of a run."""
    header: dict[str, Any] = {
        "format": FORMAT,
        "experiment": experiment.name,
        "settings": to_values(experiment.settings),
        "model": model,
        "versions": versions(),
    }
    # Otherwise there is no entry, so that runs without files keep the stamps on their rows.
    return header | {"files": dict(inputs.hashes)} if inputs.hashes else header


def _kept_units(path: Path, n_planned: int) -> str:
    """What a run that is interrupted has kept, in words."""
    kept = len(files_of_rows(path))
    # A run that is continued, and stopped before its stages, knows no number yet.
    known = f" of {n_planned}" if n_planned >= max(kept, 1) else ""
    return f"{kept}{known} units kept in {path}; the same command continues"


def versions() -> dict[str, str]:
    """The versions that the numbers of a run depend on: code, and packages whose texts are read."""
    own = {"lens_interventions": __version__, "python": platform.python_version()}
    own["transformers"] = importlib.metadata.version("transformers")
    return own | docstring_versions()


def _complete(
    units: Sequence[Unit],
    source: ModelSource,
    directory: RunDirectory,
    executor: Executor | None,
    weights: str,
    inputs: InputFiles,
    shown: StageProgress,
) -> list[tuple[Unit, pd.DataFrame]]:
    """Measure the missing units; return every unit with its rows, in the order of the units."""
    missing = [unit for unit in units if directory.read_rows(unit) is None]
    shown.begin(len(units), len(units) - len(missing))
    # Workers may be in another working directory.
    files = {unit.key: directory.file_of(unit).absolute() for unit in missing if unit.keeps_file}
    for unit, rows in measured(
        missing, source, executor, weights=weights, files=files, tell=shown.inside
    ):
        inputs.require_unchanged()
        directory.write_rows(unit, rows)
        shown.finished()
    # Rows that were just measured are read back too, so a resumed run sees the same as an unbroken
    # one.
    return [(unit, _rows_of(directory, unit)) for unit in units]


def _rows_of(directory: RunDirectory, unit: Unit) -> pd.DataFrame:
    rows = directory.read_rows(unit)
    if rows is None:
        raise RunDirectoryError(
            f"the rows of {unit.key}, which were there just now, are gone: run it again"
        )
    return rows


def _tables(rows: Mapping[str, Sequence[pd.DataFrame]]) -> dict[str, pd.DataFrame]:
    return {table: joined(parts) for table, parts in rows.items()}


def _require_distinct(units: Sequence[Unit]) -> None:
    # Names become names of files, which some systems compare without regard to case.
    times = Counter(unit.key.casefold() for unit in units)
    twice = sorted({unit.key for unit in units if times[unit.key.casefold()] > 1})
    if twice:
        raise ValueError(
            "names of units must differ in more than capital letters; these occur twice: "
            + ", ".join(twice[:5])
        )
