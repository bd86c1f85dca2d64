"""The true source at the chosen cell against its references, on the report half."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from ..design.comparisons import (
    Comparison,
    compare_arms,
    visible_beforehand,
    with_visible_by_width,
)
from ..design.conditions import NO_PATCH, Arm, Cell, control_arms
from ..design.contrasts import with_holm
from ..design.sequences import REPORT
from ..design.totals import Measure, Totals
from ..engine.results import Tables
from .choice import Choice
from .questions import QUESTIONS, CopyingQuestion
from .settings import CopyingSettings

WRITES = "no patch and every other write"
"""The value of `minus` where the unpatched model at its best temperature is no reference."""


def compared(
    settings: CopyingSettings, totals: Totals, choice: Choice, selection: Totals | None = None
) -> Comparison:
    """The true source against no patch and every control, on the report half.

    The unpatched model at its best temperature is one of the controls. The totals of the selection
    half say which effect was visible.
    """
    true = Arm.at(choice.cell)
    references = [NO_PATCH, choice.tempered, *control_arms(choice.cell)]
    visible = None
    if selection is not None:
        visible = visible_beforehand(
            selection, true, references, totals.n_clusters, settings.resampling.level
        )
    found = compare_arms(totals, true, references, settings.resampling, smallest_visible=visible)
    return with_visible_by_width(found) if totals.are_crossed else found


def writes_table(
    settings: CopyingSettings, rows: Tables, chosen: Mapping[str, Choice]
) -> pd.DataFrame:
    """The true source minus the best of no patch and the other writes, for each question.

    The temperature is left out. It was fitted to the tokens of a question alone, which are known
    only once they have come, so no sampler can have it. `p_holm` is corrected over the questions.
    """
    found = []
    for question in QUESTIONS:
        choice, measure = chosen[question.name], question.measure
        joint, *_ = compare_arms(
            question.totals(rows, REPORT),
            Arm.at(choice.cell),
            [NO_PATCH, *control_arms(choice.cell)],
            settings.resampling,
        ).rows()
        found.append({**question_columns(question, measure, choice.cell), **joint, "minus": WRITES})
    return pd.DataFrame(with_holm(found))


def question_columns(question: CopyingQuestion, measure: Measure, cell: Cell) -> dict[str, Any]:
    """The columns of a table that say what was asked, and at which cell."""
    return {
        "question": question.name,
        "measure": measure.name,
        "lower_is_better": measure.lower_is_better,
        **asdict(cell),
    }
