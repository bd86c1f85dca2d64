"""Committed results of the experiments, beside a small part of them measured again now."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..experiments import (
    CopyingSettings,
    Finding,
    LoopsSettings,
    PreservationSettings,
    Result,
    copying,
    load_result,
    loops,
    preservation,
)
from ..experiments.conditions import Cell
from ..experiments.settings import from_values
from ..intervals import Interval
from .readings import Readings
from .section import Condition, Figure, Section

_EXPERIMENTS: dict[str, Callable[..., Result]] = {
    "copying": copying,
    "loops": loops,
    "preservation": preservation,
}
# The question whose figure stands on the page, of each experiment.
_SHOWN = {"copying": 3, "loops": 0, "preservation": 1}


def replication(results: Path) -> Callable[[Readings], Section]:
    """A section on the runs below a directory, as `experiment --preset full` leaves them.

    Raises `FileNotFoundError` without any, and what `load_result` raises.
    """
    full = {name: load_result(results / name) for name in _EXPERIMENTS if (results / name).is_dir()}
    if not full:
        raise FileNotFoundError(f"none of {', '.join(_EXPERIMENTS)} is in {results}")

    def section(readings: Readings) -> Section:
        conditions, figures = [], []
        for name, measured in full.items():
            live = _EXPERIMENTS[name](readings.bridge, settings=_slice(measured))
            again = {found.question: found for found in live.verdicts}
            for found in _comparable(measured):
                conditions.append(_condition(found, again[found.question]))
            shown = measured.verdicts[_SHOWN[name]].figure
            figures.append(Figure(f"{name.capitalize()}, full run.", measured.figures()[shown]))
        agreeing = sum(condition.holds for condition in conditions)
        return Section(
            name="replication",
            title="Does seeing the true token help? The full results, tried again",
            brief=f"{agreeing} of {len(conditions)} small live measurements agree with the full "
            "run within their intervals",
            claim="Patching the true next token in was an idea that nobody had measured. The full "
            "runs of the library's experiments did; a small part of each is measured again here.",
            conditions=tuple(conditions),
            text=(
                "A live measurement agrees with the full run when their 95% intervals overlap. It "
                "takes a few texts where the full run takes many, so that its interval is wide; it "
                "tells whether the numbers can be had again, and settles nothing else.",
                *(
                    f"{name.capitalize()}, full run. {found.question} {found.verdict}."
                    for name, measured in full.items()
                    for found in measured.verdicts
                ),
            ),
            figures=tuple(figures),
        )

    section.__name__ = replication.__name__
    return section


def _condition(full: Finding, live: Finding) -> Condition:
    there, here = full.verdict.interval, live.verdict.interval
    return Condition(
        f"live and full agree: {full.question[0].lower()}{full.question[1:].rstrip('?')}",
        overlap(there, here),
        f"full {_short(there)}, live {_short(here)}",
    )


def overlap(first: Interval, second: Interval) -> bool:
    """Whether two intervals have a number in common; one without ends has none."""
    return first.low <= second.high and second.low <= first.high


def _short(interval: Interval) -> str:
    return f"{interval.estimate:+.3g} [{interval.low:+.3g}, {interval.high:+.3g}]"


def _slice(full: Result) -> Any:
    """Settings of a measurement of a minute or less, at the cell that the full run chose."""
    if full.experiment == "preservation":
        whole = from_values(PreservationSettings, full.settings)
        return replace(whole, documents=6, document_tokens=64, every=10, template_words=1)
    if full.experiment == "copying":
        cell = _cells(full)[full.verdicts[_SHOWN["copying"]].question]
        return replace(
            from_values(CopyingSettings, full.settings),
            layers=(cell.layer,),
            strengths=(cell.strength,),
            modes=(cell.mode,),
            induction_sequences=(2, 8),
            template_words=(1, 1),
            documents=(2, 5),
            document_tokens=96,
        )
    conditions = full.tables["conditions"]
    patched = conditions[conditions["family"] == "controls"].iloc[0]
    return replace(
        from_values(LoopsSettings, full.settings),
        layers=(int(patched["layer"]),),
        strengths=(float(patched["strength"]),),
        modes=(str(patched["mode"]),),
        prompts=8,
        new_tokens=64,
        search_prompts=1,
        search_tokens=16,
        temperatures=(),
        penalties=(),
        top_p=(),
        min_p=(),
        rule_temperatures=(),
        passages=4,
        rounds=2,
        documents=4,
        document_tokens=32,
    )


def _comparable(full: Result) -> list[Finding]:
    """The findings that the slice measures at the same cell."""
    if full.experiment == "loops":  # repeated passages have a cell of their own
        return [found for found in full.verdicts if found.figure in ("loop_share", "frontier")]
    if full.experiment == "preservation":
        return list(full.verdicts)
    cells = _cells(full)
    shown = cells[full.verdicts[_SHOWN["copying"]].question]
    return [found for found in full.verdicts if cells[found.question] == shown]


def _cells(full: Result) -> dict[str, Cell]:
    """The cell of each question of the copying experiment."""
    table = full.tables["contrasts"].drop_duplicates("question")
    cells = map(Cell, table["layer"].tolist(), table["strength"].tolist(), table["mode"].tolist())
    return {found.question: cell for found, cell in zip(full.verdicts, cells, strict=True)}
