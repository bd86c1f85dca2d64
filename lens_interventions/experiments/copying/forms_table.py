"""What each form of the patch does at its own best cell."""

from collections.abc import Mapping

import pandas as pd

from ..design.conditions import NO_PATCH, Arm
from ..design.contrasts import contrasts, with_holm
from ..design.sequences import REPORT
from ..engine.results import Tables
from .choice import Choice
from .comparison import question_columns
from .questions import QUESTIONS
from .settings import CopyingSettings


def forms_table(
    settings: CopyingSettings, rows: Tables, chosen: Mapping[str, Choice]
) -> pd.DataFrame:
    """The true source minus no patch on the report half, by question and form.

    The cell of each form is the best of the selection half. `p_holm` is corrected over the forms
    of a question.
    """
    found = []
    for question in QUESTIONS:
        cells = list(chosen[question.name].of_form.values())
        pairs = [(Arm.at(cell), NO_PATCH) for cell in cells]
        of_cells = contrasts(question.totals(rows, REPORT), pairs, settings.resampling)
        found += with_holm(
            [
                {**question_columns(question, question.measure, cell), **of_cell.columns()}
                for cell, of_cell in zip(cells, of_cells, strict=True)
            ]
        )
    return pd.DataFrame(found)
