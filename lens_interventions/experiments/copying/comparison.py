"""The true source at the chosen cell against its references, on the report half."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from ...measures.intervals import holm
from ..design.comparisons import (
    Comparison,
    against,
    compare,
    visible_beforehand,
    with_visible_by_width,
)
from ..design.conditions import NO_PATCH, Arm, Cell, control_arms
from ..design.sequences import REPORT, SELECTION
from ..design.totals import Measure, totals_of
from ..engine.results import Tables
from .choice import Choice
from .questions import QUESTIONS, CopyingQuestion
from .settings import CopyingSettings

WRITES = "no patch and every other write"
"""The value of `minus` where the unpatched model at its best temperature is no reference."""


def compared(
    settings: CopyingSettings,
    rows: Tables,
    question: CopyingQuestion,
    measure: Measure,
    choice: Choice,
) -> Comparison:
    """The true source against no patch and every control.

    The unpatched model at its best temperature is one of the controls.
    """
    true = Arm.at(choice.cell)
    references = [NO_PATCH, choice.tempered, *control_arms(choice.cell)]
    totals = totals_of(rows[question.table], measure, REPORT)
    visible = None
    if measure == question.measure:
        visible = visible_beforehand(
            totals_of(rows[question.table], measure, SELECTION),
            true,
            references,
            totals.n_clusters,
            settings.resampling.level,
        )
    found = compare(
        against(totals, true),
        references,
        settings.resampling,
        lower_is_better=measure.lower_is_better,
        smallest_visible=visible,
    )
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
        joint, *_ = compare(
            against(totals_of(rows[question.table], measure, REPORT), Arm.at(choice.cell)),
            [NO_PATCH, *control_arms(choice.cell)],
            settings.resampling,
            lower_is_better=measure.lower_is_better,
        ).rows()
        found.append({**question_columns(question, measure, choice.cell), **joint, "minus": WRITES})
    table = pd.DataFrame(found)
    return table.assign(p_holm=holm(table["p_value"].to_numpy(dtype=np.float64)))


def question_columns(question: CopyingQuestion, measure: Measure, cell: Cell) -> dict[str, Any]:
    """The columns of a table that say what was asked, and at which cell."""
    return {
        "question": question.name,
        "measure": measure.name,
        "lower_is_better": measure.lower_is_better,
        **asdict(cell),
    }
