"""The comparisons of a finished run, measured again on less material."""

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ...measures.intervals import Interval
from ..design.conditions import NO_PATCH, Arm, Cell
from ..design.contrasts import contrast, totals_of
from ..design.sequences import REPORT
from .analysis import BEST_CONTROL
from .settings import CopyingSettings
from .stages import QUESTIONS, units_of

# Templates cost several times as much as the rest together.
_QUESTIONS = tuple(question for question in QUESTIONS if question.table != "templates")


def copying_again(
    bridge: TransformerBridge, settings: CopyingSettings, contrasts: pd.DataFrame
) -> dict[str, Interval]:
    """True source minus best control, by question, at the cells and with the controls of a run.

    **Arguments:**

    - `settings`: how much material, of which the report half is measured.
    - `contrasts`: the run's table of that name.
    """
    compared: dict[str, tuple[Arm, Arm]] = {}
    arms_of: dict[str, list[Arm]] = {}
    for question in _QUESTIONS:
        of_question = contrasts["question"] == question.name
        row = contrasts[of_question & (contrasts["measure"] == question.measure.name)].iloc[0]
        cell = Cell(int(row["layer"]), float(row["strength"]), str(row["mode"]))
        control = Arm.at(cell, str(row["minus"]).removeprefix(f"{BEST_CONTROL}: "))
        compared[question.name] = Arm.at(cell), control
        arms = arms_of.setdefault(question.table, [NO_PATCH])
        arms += [arm for arm in compared[question.name] if arm not in arms]
    rows: dict[str, list[pd.DataFrame]] = {}
    for unit in units_of(bridge, settings, REPORT, "again", arms_of):
        rows.setdefault(unit.table, []).append(unit.measure(bridge, **unit.parameters))
    found = {}
    for question in _QUESTIONS:
        totals = totals_of(pd.concat(rows[question.table]), question.measure, REPORT)
        true, control = compared[question.name]
        found[question.text] = contrast(totals, true, control, settings.resampling).interval
    return found
