"""Committed results of the experiments, beside a small part of them measured again now."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from transformer_lens.model_bridge import TransformerBridge

from ..experiments import (
    CopyingSettings,
    Finding,
    LoopsSettings,
    PreservationSettings,
    Result,
    load_result,
    loops,
    preservation,
)
from ..experiments.copying.again import copying_again
from ..experiments.settings import from_values
from ..intervals import Interval
from .readings import Readings
from .section import Condition, Figure, Section

_EXPERIMENTS = ("copying", "loops", "preservation", "learned")
# The question whose figure stands on the page, of each experiment.
_SHOWN = {"copying": 3, "loops": 0, "preservation": 1, "learned": 0}


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
            live = _live(readings.bridge, measured)
            conditions += [
                _condition(found, live[found.question])
                for found in measured.verdicts
                if found.question in live
            ]
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
                "tells whether the numbers can be had again, and settles nothing else. Learned "
                "writes are not trained again here: that takes hours.",
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


def _condition(full: Finding, live: Interval) -> Condition:
    there = full.verdict.interval
    return Condition(
        f"live and full agree: {full.question[0].lower()}{full.question[1:].rstrip('?')}",
        overlap(there, live),
        f"full {_short(there)}, live {_short(live)}",
    )


def overlap(first: Interval, second: Interval) -> bool:
    """Whether two intervals have a number in common; one without ends has none."""
    return first.low <= second.high and second.low <= first.high


def _short(interval: Interval) -> str:
    return f"{interval.estimate:+.3g} [{interval.low:+.3g}, {interval.high:+.3g}]"


def _live(bridge: TransformerBridge, full: Result) -> dict[str, Interval]:
    """Intervals of a measurement of half a minute, by question, at the cells of the full run."""
    if full.experiment == "copying":
        copies = replace(
            from_values(CopyingSettings, full.settings),
            induction_sequences=(1, 16),
            documents=(1, 6),
            document_tokens=96,
        )
        return copying_again(bridge, copies, full.tables["contrasts"])
    if full.experiment == "preservation":
        tokens = replace(
            from_values(PreservationSettings, full.settings),
            documents=6,
            document_tokens=64,
            every=10,
            template_words=1,
        )
        return _intervals(preservation(bridge, settings=tokens))
    if full.experiment == "learned":
        return {}
    conditions = full.tables["conditions"]
    patched = conditions[conditions["family"] == "controls"].iloc[0]
    samples = replace(
        from_values(LoopsSettings, full.settings),
        layers=(int(patched["layer"]),),
        strengths=(float(patched["strength"]),),
        modes=(str(patched["mode"]),),
        prompts=8,
        new_tokens=48,
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
    found = loops(bridge, settings=samples).verdicts
    # Repeated passages have a cell of their own in the full run.
    return {f.question: f.verdict.interval for f in found if f.figure != "escape"}


def _intervals(result: Result) -> dict[str, Interval]:
    return {found.question: found.verdict.interval for found in result.verdicts}
