"""From rows to the tables, verdicts and figures of the loops experiment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from ...measures.intervals import share_difference_interval
from ..design.comparisons import (
    Comparison,
    ContrastsWith,
    against,
    compare,
    question_rows,
    said_of,
    visible_beforehand,
    with_holm_over_questions,
)
from ..design.conditions import NO_PATCH, Arm, Cell, arm_label, control_arms
from ..design.contrasts import Contrast, Resampling
from ..design.findings import Compared, judged_comparisons
from ..design.rules import GREEDY
from ..design.samples import LOOPED, REP, sample_totals, shown_samples
from ..design.sequences import REPORT, SELECTION
from ..design.totals import Measure, Totals, totals_of
from ..engine.results import Analysis, Tables
from .choice import affordable, log_odds_totals, loops_cell, loss_totals, round_cell
from .figures import draw
from .kept_rows import kept_rows
from .settings import LoopsSettings
from .tables import condition_table, escape_table, grid_table, noticing_table, survival_table

LOOPS_QUESTION = "Does seeing the true token help greedy decoding to stay out of loops?"
ESCAPE_QUESTION = "Does seeing the true token help the model out of a passage that was repeated?"
REPETITION_QUESTION = "Does seeing the true token help greedy decoding to repeat itself less?"


def analyse(settings: LoopsSettings, rows: Tables) -> Analysis:
    """The analysis of a run."""
    chosen = Choice.of(rows, settings)
    asked = {
        "loops": _share_question(rows, chosen, settings),
        "repetition": _rep_question(rows, chosen, settings),
        "escape": _escape_question(rows, chosen, settings),
    }
    tables = {
        "conditions": condition_table(rows, settings),
        "contrasts": _contrasts(asked),
        "survival": survival_table(rows, settings),
        "grid": grid_table(rows, settings),
        "escape": escape_table(rows, chosen.round_cell, settings),
        "noticing": noticing_table(rows["noticing"], settings),
        "samples": shown_samples(rows["samples"], chosen.control, settings.shown),
        "rows": kept_rows(rows),
    }
    return Analysis(tables, judged_comparisons([*asked.values()]), draw)


@dataclass(frozen=True)
class Choice:
    """The choices of the selection half.

    Attributes:
        cell: for sampling; `round_cell`, for the way out of a repeated passage.
        controls, round_controls: the controls there that the loss budget allows.
        control: of `controls` the one with the fewest loops, whose samples are shown.
    """

    cell: Cell
    controls: tuple[Arm, ...]
    control: Arm
    round_cell: Cell
    round_controls: tuple[Arm, ...]

    @classmethod
    def of(cls, rows: Tables, settings: LoopsSettings) -> "Choice":
        """Choose, from rows of the selection half alone."""
        cell, round_at = loops_cell(rows, settings), round_cell(rows, settings)
        controls = affordable(control_arms(cell), rows, settings)
        greedy = _greedy(rows["samples"], LOOPED, SELECTION)
        return cls(
            cell,
            controls,
            greedy.best(controls),
            round_at,
            affordable(control_arms(round_at), rows, settings),
        )


_CHOSEN = (
    " The cell of the patch ({cell}) was chosen on another part of the {material}, among those "
    "that raise the loss on held-out prose by at most {budget:g} nats (or, where none does, as "
    "that with the lowest loss); the controls that count are those within the same budget. Loss "
    "here: {losses}."
)


def _share_question(rows: Tables, chosen: Choice, settings: LoopsSettings) -> Compared:
    here, other = (_greedy(rows["samples"], LOOPED, half) for half in (REPORT, SELECTION))
    true, references = Arm.at(chosen.cell), [NO_PATCH, *chosen.controls]

    def shares(references: Sequence[Arm], resampling: Resampling) -> list[Contrast]:
        intervals = [
            share_difference_interval(
                here.of(true) > 0, here.of(reference) > 0, level=resampling.level
            )
            for reference in references
        ]
        of_means = against(here, true)(references, resampling)
        return [
            Contrast(interval, of_mean.p_value)
            for interval, of_mean in zip(intervals, of_means, strict=True)
        ]

    compared = _compare(shares, here, other, true, references, settings)
    method = (
        f"Share of {compared.joint.n} prompts whose greedy continuation, up to "
        f"{settings.new_tokens} tokens, ends in an exact loop, paired by prompt: "
        f"{_means(here, [NO_PATCH, true, *chosen.controls])}. {said_of(compared, '')}"
        + _how_chosen(rows, true, chosen.controls, "prompts", settings)
    )
    return Compared(
        LOOPS_QUESTION, compared, method, "loop_share", settings.smallest_share, "of samples"
    )


def _rep_question(rows: Tables, chosen: Choice, settings: LoopsSettings) -> Compared:
    here, other = (_greedy(rows["samples"], REP, half) for half in (REPORT, SELECTION))
    true, references = Arm.at(chosen.cell), [NO_PATCH, *chosen.controls]
    compared = _compare(against(here, true), here, other, true, references, settings)
    method = (
        f"rep-4, the share of 4-grams that repeat another of the same sample, of the same "
        f"{compared.joint.n} samples: {_means(here, [NO_PATCH, true, *chosen.controls])}. Prompts "
        f"are resampled. {said_of(compared, '')}"
        + _how_chosen(rows, true, chosen.controls, "prompts", settings)
    )
    return Compared(REPETITION_QUESTION, compared, method, "frontier", settings.smallest_share)


def _escape_question(rows: Tables, chosen: Choice, settings: LoopsSettings) -> Compared:
    here, other = (log_odds_totals(rows, half) for half in (REPORT, SELECTION))
    true, references = Arm.at(chosen.round_cell), [NO_PATCH, *chosen.round_controls]
    compared = _compare(against(here, true), here, other, true, references, settings)
    method = (
        f"Log-odds, in nats, that free running at temperature 1 says a passage exactly once more "
        f"after it was said k times, mean over k = 1 to {settings.rounds - 1} and "
        f"{compared.joint.n} passages, which are resampled: "
        f"{_means(here, [NO_PATCH, true, *chosen.round_controls])}. {said_of(compared, 'nats')}"
        + _how_chosen(rows, true, chosen.round_controls, "passages", settings)
    )
    return Compared(
        ESCAPE_QUESTION,
        compared,
        method,
        "escape",
        settings.smallest_log_odds,
        "nats of log-odds",
    )


def _compare(
    contrasts_with: ContrastsWith,
    here: Totals,
    other: Totals,
    true: Arm,
    references: Sequence[Arm],
    settings: LoopsSettings,
) -> Comparison:
    """The true source against its references here; how much they vary in the `other` half."""
    n = here.n_clusters
    return compare(
        contrasts_with,
        references,
        settings.resampling,
        lower_is_better=True,
        smallest_visible=visible_beforehand(other, true, references, n, settings.resampling.level),
    )


def _contrasts(asked: Mapping[str, Compared]) -> pd.DataFrame:
    """The report half: the true source minus all its references, and minus each.

    `p_holm` is corrected over the questions in the joint rows, and over the comparisons of the same
    question in the others.
    """
    found = [
        {"question": name, **row}
        for name, question in asked.items()
        for row in question_rows(question.comparison)
    ]
    return with_holm_over_questions(pd.DataFrame(found))


def _how_chosen(
    rows: Tables, true: Arm, controls: Sequence[Arm], material: str, settings: LoopsSettings
) -> str:
    return _CHOSEN.format(
        cell=true.cell,
        material=material,
        budget=settings.loss_budget,
        losses=_means(loss_totals(rows, REPORT), [NO_PATCH, true, *controls]),
    )


def _means(totals: Totals, arms: Sequence[Arm]) -> str:
    return ", ".join(f"{arm_label(arm)} {totals.mean(arm):.3g}" for arm in arms)


def _greedy(samples: pd.DataFrame, measure: str, half: str) -> Totals:
    greedy = sample_totals(samples[samples["rule"] == str(GREEDY)])
    return totals_of(greedy, Measure(measure), half)
