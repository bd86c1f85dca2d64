"""From rows to the tables, verdicts and figures of the loops experiment."""

from dataclasses import dataclass

import pandas as pd

from ...measures.intervals import Interval, share_difference_interval
from ...measures.verdicts import verdict
from ..design.conditions import NO_PATCH, Arm, Cell
from ..design.contrasts import Measure, Resampling, Totals, contrast, totals_of
from ..design.rules import GREEDY
from ..design.samples import LOOPED, REP, sample_totals, shown_samples
from ..design.sequences import REPORT, SELECTION
from ..engine.results import Analysis, Finding, Tables
from .choice import again_totals, best_control, loops_cell, loss_totals, round_cell
from .figures import draw
from .settings import LoopsSettings
from .tables import condition_table, escape_table, grid_table, noticing_table, survival_table

LOOPS_QUESTION = "Does seeing the true token help greedy decoding to stay out of loops?"
REPETITION_QUESTION = "Does seeing the true token help greedy decoding to repeat itself less?"


def analyse(settings: LoopsSettings, rows: Tables) -> Analysis:
    """The analysis of a run."""
    chosen = Choice.of(rows, settings)
    tables = {
        "conditions": condition_table(rows, settings),
        "survival": survival_table(rows, settings),
        "grid": grid_table(rows, settings),
        "escape": escape_table(rows, settings),
        "noticing": noticing_table(rows["noticing"], settings),
        "samples": shown_samples(rows["samples"], chosen.control, settings.shown),
    }
    findings = (
        _share_finding(rows, chosen, settings),
        _rep_finding(rows, chosen, settings),
        _escape_finding(rows, chosen, settings),
    )
    return Analysis(tables, findings, draw)


@dataclass(frozen=True)
class Choice:
    """The choices of the selection half.

    Attributes:
        cell, control: for sampling.
        round_cell, round_control: for the way out of a repeated passage.
    """

    cell: Cell
    control: Arm
    round_cell: Cell
    round_control: Arm

    @classmethod
    def of(cls, rows: Tables, settings: LoopsSettings) -> "Choice":
        """Choose, from rows of the selection half alone."""
        cell, round_at = loops_cell(rows, settings), round_cell(rows, settings)
        greedy = _greedy(rows["samples"], LOOPED, SELECTION)
        again = again_totals(rows, SELECTION)
        return cls(
            cell,
            best_control(greedy, cell, rows, settings),
            round_at,
            best_control(again, round_at, rows, settings),
        )


_CHOSEN = (
    " The cell of the patch ({cell}) and the best control ({control}) were chosen on the other "
    "half of the {material}, among those that raise the loss on held-out prose by at most "
    "{budget:g} nats (or, where none does, as that with the lowest loss). Loss here: {losses}."
)


def _loops_interval(
    samples: pd.DataFrame, true: Arm, control: Arm, resampling: Resampling
) -> Interval:
    """The share of the report half's greedy samples that end in a loop, true minus control."""
    looped = _greedy(samples, LOOPED, REPORT)
    return share_difference_interval(
        looped.of(true) > 0, looped.of(control) > 0, level=resampling.level
    )


def _repetition_interval(
    samples: pd.DataFrame, true: Arm, control: Arm, resampling: Resampling
) -> Interval:
    """rep-4 of the report half's greedy samples, true minus control."""
    return contrast(_greedy(samples, REP, REPORT), true, control, resampling).interval


def _share_finding(rows: Tables, chosen: Choice, settings: LoopsSettings) -> Finding:
    greedy = _greedy(rows["samples"], LOOPED, REPORT)
    true = Arm.at(chosen.cell)
    interval = _loops_interval(rows["samples"], true, chosen.control, settings.resampling)
    method = (
        f"Share of {interval.n} prompts whose greedy continuation, up to {settings.new_tokens} "
        f"tokens, ends in an exact loop, paired by prompt: {_means(greedy, true, chosen.control)}."
        + _how_chosen(rows, chosen.cell, chosen.control, "prompts", settings)
    )
    return _finding(LOOPS_QUESTION, interval, method, "loop_share", settings)


def _rep_finding(rows: Tables, chosen: Choice, settings: LoopsSettings) -> Finding:
    greedy = _greedy(rows["samples"], REP, REPORT)
    true = Arm.at(chosen.cell)
    interval = _repetition_interval(rows["samples"], true, chosen.control, settings.resampling)
    method = (
        f"rep-4, the share of 4-grams that repeat another of the same sample, of the same "
        f"{interval.n} samples: {_means(greedy, true, chosen.control)}. Prompts are resampled."
        + _how_chosen(rows, chosen.cell, chosen.control, "prompts", settings)
    )
    return _finding(REPETITION_QUESTION, interval, method, "frontier", settings)


def _escape_finding(rows: Tables, chosen: Choice, settings: LoopsSettings) -> Finding:
    again = again_totals(rows, REPORT)
    true = Arm.at(chosen.round_cell)
    interval = contrast(again, true, chosen.round_control, settings.resampling).interval
    method = (
        f"Probability that free running at temperature 1 says a passage exactly once more after it "
        f"was said k times, mean over k = 1 to {settings.rounds - 1} and {interval.n} passages, "
        f"which are resampled: {_means(again, true, chosen.round_control)}."
        + _how_chosen(rows, chosen.round_cell, chosen.round_control, "passages", settings)
    )
    return _finding(
        "Does seeing the true token help the model out of a passage that was repeated?",
        interval,
        method,
        "escape",
        settings,
    )


def _how_chosen(
    rows: Tables, cell: Cell, control: Arm, material: str, settings: LoopsSettings
) -> str:
    losses = loss_totals(rows, REPORT)
    return _CHOSEN.format(
        cell=cell,
        control=control.source,
        material=material,
        budget=settings.loss_budget,
        losses=_means(losses, Arm.at(cell), control),
    )


def _means(totals: Totals, true: Arm, control: Arm) -> str:
    named = (("no patch", NO_PATCH), ("true", true), (control.source, control))
    return ", ".join(f"{name} {totals.mean(arm):.3g}" for name, arm in named)


def _greedy(samples: pd.DataFrame, measure: str, half: str) -> Totals:
    greedy = sample_totals(samples[samples["rule"] == str(GREEDY)])
    return totals_of(greedy, Measure(measure), half)


def _finding(
    question: str, interval: Interval, method: str, figure: str, settings: LoopsSettings
) -> Finding:
    judged = verdict(
        interval,
        smallest_effect=settings.smallest_share,
        lower_is_better=True,
        units="of samples" if figure == "loop_share" else "",
    )
    return Finding(question, judged, method, figure)
