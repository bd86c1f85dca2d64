"""Committed results of the experiments, beside a small part of them measured again now."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from transformer_lens.model_bridge import TransformerBridge

from ...experiments import (
    CopyingSettings,
    Finding,
    LoopsSettings,
    PreservationSettings,
    Result,
    load_result,
    preservation,
)
from ...experiments.copying.again import copying_again
from ...experiments.engine.json_values import from_values
from ...experiments.loops.again import loops_again
from ...measures.intervals import Interval
from ...model.fingerprint import weights_sha256
from .readings import Readings
from .section import Condition, Figure, Section

_EXPERIMENTS = ("copying", "loops", "preservation", "learned")
# The question whose figure stands on the page, of each experiment.
_SHOWN = {"copying": 3, "loops": 0, "preservation": 1, "learned": 0}
# Of the report half, that are sampled again.
_PROMPTS = 8


def replication(results: Path, bridge: TransformerBridge) -> Callable[[Readings], Section]:
    """A section on the runs below a directory, as `experiment --preset full` leaves them.

    Raises `FileNotFoundError` without any, `ValueError` for runs of another model than the bridge,
    and what `load_result` raises.
    """
    full = {name: load_result(results / name) for name in _EXPERIMENTS if (results / name).is_dir()}
    if not full:
        raise FileNotFoundError(f"none of {', '.join(_EXPERIMENTS)} is in {results}")
    _require_same_model(results, full, bridge)

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


def _require_same_model(
    results: Path, full: Mapping[str, Result], bridge: TransformerBridge
) -> None:
    here = weights_sha256(bridge)
    for name, measured in full.items():
        model = measured.header["model"]
        if model["weights_sha256"] != here:
            raise ValueError(
                f"{results / name} was measured on {model['name']} with weights "
                f"{model['weights_sha256'][:12]}, the page is of {bridge.cfg.model_name} with "
                f"weights {here[:12]}: give the model of the runs (in their dtype, and as their "
                "transformer_lens names its weights), or leave them out"
            )


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
        settings = from_values(CopyingSettings, full.settings)
        copies = replace(
            settings,
            # Both halves are drawn one after the other, so the first is to be as long as it was.
            induction_sequences=(settings.induction_sequences[0], 16),
            documents=(1, 6),
            document_tokens=96,
        )
        return copying_again(bridge, copies, full.tables["contrasts"])
    if full.experiment == "preservation":
        # At all points that the full run read: it judges by their mean.
        tokens = replace(
            from_values(PreservationSettings, full.settings),
            documents=6,
            document_tokens=64,
            template_words=1,
        )
        return _intervals(preservation(bridge, settings=tokens))
    if full.experiment == "learned":
        return {}
    samples = replace(from_values(LoopsSettings, full.settings), prompts=2 * _PROMPTS)
    return loops_again(bridge, samples, full.tables)


def _intervals(result: Result) -> dict[str, Interval]:
    return {found.question: found.verdict.interval for found in result.verdicts}
