"""Units of work, which are independent, deterministic, and measured by any free process."""

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch

from ..._progress import told_to
from ...model.exclusive import exclusive_use
from ...model.fingerprint import weights_sha256
from .json_values import canonical_json, digest
from .model_source import ModelSource

Measurement = TypeVar("Measurement", bound=Callable[..., pd.DataFrame])

# The place where the function of each kind is defined.
_KINDS: dict[str, str] = {}


def unit_kind(name: str) -> Callable[[Measurement], Measurement]:
    """A decorator that gives a function that measures units a permanent name.

    An unfinished run knows its units by this `name`, or by the function's own name if it has no
    other. So the function can move to another module, and a function with a kind can be renamed,
    without making finished units invalid. An edit of its code does not make them invalid either: if
    it then measures something else, give the kind another name, or the run another directory.

    Raises `ValueError` if another function has this name.
    """

    def named(function: Measurement) -> Measurement:
        place = f"{function.__module__}.{function.__qualname__}"
        known = _KINDS.setdefault(name, place)
        if known != place:
            raise ValueError(
                f"{name!r} is already the unit kind of {known}: give {place} another name"
            )
        function.unit_kind = name  # type: ignore[attr-defined]
        return function

    return named


@dataclass(frozen=True)
class Unit:
    """An independent piece of a run.

    Attributes:
        table: the table that its rows belong to; units of one table have the same columns.
        name: its name, unique within the table.
        measure: a function defined in a module, called as `measure(bridge, **parameters)`. Its rows
            must depend on nothing else, so that they are the same on any machine at any time. Name
            it with `unit_kind`.
        parameters: the parameters, as JSON values.
        keeps_file: whether `measure` also takes `file`, a path in the run's directory at which it
            may keep its state and its products. With several machines the directory must be on a
            shared disk; otherwise a unit that moves to another machine starts again.

    Raises `ValueError` for names that cannot be file names; `TypeError` for parameters that JSON
    cannot hold.
    """

    table: str
    name: str
    measure: Callable[..., pd.DataFrame]
    parameters: Mapping[str, Any]
    keeps_file: bool = False

    def __post_init__(self) -> None:
        for part in (self.table, self.name):
            if not re.fullmatch(r"\w[\w.-]*", part, re.ASCII):
                raise ValueError(f"{part!r} must consist of letters, digits, '_', '-' and '.'")
        for name, value in self.parameters.items():
            try:
                canonical_json(value)
            except TypeError as error:
                raise TypeError(
                    f"the parameter {name!r} of {self.key} is no JSON value ({error}): give what "
                    "it is made from, and make it in the unit"
                ) from error

    @property
    def key(self) -> str:
        """`table/name`."""
        return f"{self.table}/{self.name}"

    @functools.cached_property
    def digest(self) -> str:
        """A hash that identifies a unit by what it measures, wherever its function is defined."""
        kind = getattr(self.measure, "unit_kind", self.measure.__qualname__)
        return digest([self.table, self.name, kind, self.parameters])


def measured(
    units: Sequence[Unit],
    source: ModelSource,
    executor: Executor | None,
    *,
    weights: str,
    files: Mapping[str, Path],
    tell: Callable[[float], None],
) -> Iterator[tuple[Unit, pd.DataFrame]]:
    """Measure units, in this process if there is no executor, and yield each when it is finished.

    `weights` is the digest of the model's weights, which other processes must have too. `files` has
    the path of each unit that keeps a file, by key. `tell` is called with the share of a unit that
    is done, if this process measures it. An error in a unit is passed on with the unit's name as a
    note. Units that have not begun are cancelled then, and also if the caller stops early. Those
    that have begun are yielded before the error is passed on, unless it is a `KeyboardInterrupt`.
    """
    if executor is None:
        for unit in units:
            with told_to(tell):
                rows = measure_unit(source, unit, file=files.get(unit.key))
            yield unit, rows
        return
    futures = {
        executor.submit(measure_unit, source, unit, weights, files.get(unit.key)): unit
        for unit in units
    }
    waiting = set(futures)
    failed = None
    try:
        for future in as_completed(futures):
            waiting.remove(future)
            if isinstance(future.exception(), Exception):
                failed = future
                break
            yield futures[future], future.result()
        if failed is not None:
            # A unit that has begun cannot be cancelled, and may be hours of work.
            begun = [future for future in waiting if not future.cancel()]
            for future in as_completed(begun):
                if not isinstance(future.exception(), Exception):
                    yield futures[future], future.result()
            failed.result()
    finally:
        for future in futures:
            future.cancel()


def measure_unit(
    source: ModelSource, unit: Unit, weights: str | None = None, file: Path | None = None
) -> pd.DataFrame:
    """Measure one unit. This is the function that an executor runs.

    `file` is the path for a unit that keeps a file.

    Raises `RuntimeError` if the model here has other weights than `weights`.
    """
    bridge = source.bridge()
    with exclusive_use(bridge), torch.no_grad():
        if weights is not None:
            _require_weights(source, weights)
        try:
            kept = {}
            if unit.keeps_file:
                assert file is not None
                # On another machine without a shared disk there is none yet.
                file.parent.mkdir(parents=True, exist_ok=True)
                kept["file"] = file
            rows = unit.measure(bridge, **unit.parameters, **kept)
            if not isinstance(rows, pd.DataFrame):
                raise TypeError(f"a unit returns rows, a DataFrame; got {type(rows).__name__}")
            return rows
        except Exception as error:
            error.add_note(f"while measuring {unit.key}")
            raise


# Agreement is remembered, since a hash of all weights takes seconds. A new run asks anew, because
# weights that were edited in the meantime have another hash; and an error is never remembered.
@functools.lru_cache(maxsize=1)
def _require_weights(source: ModelSource, weights: str) -> None:
    bridge = source.bridge()
    if weights_sha256(bridge) != weights:
        raise RuntimeError(
            f"{bridge.cfg.model_name} has other weights here than where the run was started: give "
            "every worker the same model, and edit no weights during a run"
        )


def forget_model() -> None:
    """Let go of a bridge that was given to the last run, which would stay in memory.

    One that a run has loaded stays for the next run.
    """
    _require_weights.cache_clear()
