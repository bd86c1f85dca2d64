"""The three stages: the grid and then the controls on the selection half, the report half last.

The grid is measured with the true source alone. Each question shortlists the best few of the best
cells of the layers, and all controls are measured at these, on the same half. It chooses the cell
where the true source beats its best control by most, and that control.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ..design.conditions import NO_PATCH, Arm, Cell, control_arms, grid, source_arms
from ..design.contrasts import Measure, best_control, most_specific, shortlist, totals_of
from ..design.copy_rows import measure_induction, measure_templates, measure_text
from ..design.material import induction_sequences, template_sequences, text_sequences
from ..design.sequences import (
    REPORT,
    SELECTION,
    TokenSequence,
    batches,
    require_both_halves,
)
from ..engine.results import Tables
from ..engine.run import Stage
from ..engine.work_units import Unit
from .settings import CopyingSettings
from .word_in_lens import measure_lens

_MEASURES: dict[str, Callable[..., pd.DataFrame]] = {
    "induction": measure_induction,
    "templates": measure_templates,
    "text": measure_text,
    "lens": measure_lens,
}


@dataclass(frozen=True)
class Question:
    """A question of the experiment.

    Attributes:
        name: short.
        text: as a reader would ask it.
        table: name of the rows that answer it.
        measure: the measure that answers it.
        chosen_by: name of the question whose cell it uses; its own name if it chooses one.
        material: the material it is measured on, in words.
    """

    name: str
    text: str
    table: str
    measure: Measure
    chosen_by: str
    material: str


QUESTIONS = (
    Question(
        "induction",
        "Does seeing the true tokens help to copy random tokens said before?",
        "induction",
        Measure("loss"),
        "induction",
        "loss on the second copy of random tokens",
    ),
    Question(
        "rare words",
        "Does it help to say a rare word again where the sentence calls for it?",
        "templates",
        Measure("log_prob", frozenset({"rare"}), lower_is_better=False),
        "rare words",
        "log-probability of a rare word at the copy",
    ),
    Question(
        "common words",
        "Does it help to say a common word again where the sentence calls for it?",
        "templates",
        Measure("log_prob", frozenset({"common"}), lower_is_better=False),
        "common words",
        "log-probability of a common word at the copy",
    ),
    Question(
        "copyable",
        "Does it help on tokens of natural text that could have been copied?",
        "text",
        Measure("loss", frozenset({"copyable"})),
        "copyable",
        "loss on tokens that complete an earlier pair",
    ),
    Question(
        "other",
        "What does that do to the other tokens of natural text?",
        "text",
        Measure("loss", frozenset({"other"})),
        "copyable",
        "loss on tokens that do not complete an earlier pair",
    ),
    Question(
        "surprise",
        "Does it help right after something surprising really happened?",
        "text",
        Measure("loss", frozenset({"surprise-now"})),
        "surprise",
        "loss on the token after a surprising one",
    ),
)


def select(bridge: TransformerBridge, settings: CopyingSettings, _rows: Tables) -> list[Unit]:
    """The true source on the whole grid, on the selection half."""
    cells = grid(settings.layers, settings.strengths, settings.modes)
    arms = [NO_PATCH, *map(Arm.at, cells)]
    arms_of = dict.fromkeys(("induction", "templates", "text"), arms)
    return _units_of(bridge, settings, SELECTION, "grid", arms_of)


def compare_controls(
    bridge: TransformerBridge, settings: CopyingSettings, rows: Tables
) -> list[Unit]:
    """The controls at the shortlisted cells, still on the selection half."""
    arms_of = {
        table: [arm for cell in cells for arm in control_arms(cell)]
        for table, cells in _by_table(shortlists(settings, rows)).items()
    }
    return _units_of(bridge, settings, SELECTION, "controls", arms_of)


def measure_report_half(
    bridge: TransformerBridge, settings: CopyingSettings, rows: Tables
) -> list[Unit]:
    """Every source at the chosen cells, and the lens under three of them, on the report half."""
    chosen = choices(settings, rows)
    cells = _by_table({name: [choice.cell] for name, choice in chosen.items()})
    arms_of: dict[str, Sequence[Arm]] = {
        table: [NO_PATCH, *(arm for cell in of_table for arm in source_arms(cell))]
        for table, of_table in cells.items()
    }
    words = chosen["rare words"]
    arms_of["lens"] = [NO_PATCH, Arm.at(words.cell), words.control]
    return _units_of(bridge, settings, REPORT, "report", arms_of)


STAGES: dict[str, Stage] = {
    "selection half": select,
    "controls": compare_controls,
    "report half": measure_report_half,
}


@dataclass(frozen=True)
class Choice:
    """The choice of the selection half for a question.

    Attributes:
        cell: of the shortlist, where the true source beats its best control by most.
        control: the control that did best there.
    """

    cell: Cell
    control: Arm


def choices(settings: CopyingSettings, rows: Tables) -> Mapping[str, Choice]:
    """For each question the cell and the control, chosen on the selection half."""
    lists = shortlists(settings, rows)
    selecting = {q.name: q for q in QUESTIONS}
    found = {}
    for question in QUESTIONS:
        chooser = selecting[question.chosen_by]
        totals = totals_of(rows[chooser.table], chooser.measure, SELECTION)
        cell = most_specific(
            totals, lists[chooser.name], lower_is_better=chooser.measure.lower_is_better
        )
        own = totals_of(rows[question.table], question.measure, SELECTION)
        control = best_control(own, cell, lower_is_better=question.measure.lower_is_better)
        found[question.name] = Choice(cell, control)
    return found


def shortlists(settings: CopyingSettings, rows: Tables) -> dict[str, list[Cell]]:
    """For each question that chooses its own cell, the cells to be compared with controls."""
    return {
        question.name: shortlist(
            totals_of(rows[question.table], question.measure, SELECTION),
            settings.shortlist,
            lower_is_better=question.measure.lower_is_better,
        )
        for question in QUESTIONS
        if question.chosen_by == question.name
    }


def _by_table(cells: Mapping[str, Sequence[Cell]]) -> dict[str, list[Cell]]:
    """The cells of all questions of a table together, each once."""
    found: dict[str, list[Cell]] = {}
    for question in QUESTIONS:
        known = found.setdefault(question.table, [])
        known += [cell for cell in cells.get(question.name, ()) if cell not in known]
    return found


def _units_of(
    bridge: TransformerBridge,
    settings: CopyingSettings,
    half: str,
    stage: str,
    arms_of: Mapping[str, Sequence[Arm]],
) -> list[Unit]:
    """Units that measure arms, given by table, on one half of the table's material."""
    units = []
    for table, arms in arms_of.items():
        sequences = _sequences(table, bridge, settings)
        require_both_halves(sequences, table)
        for index, batch in enumerate(batches(sequences, half, settings.batch)):
            parameters: dict[str, Any] = {
                "sequences": [text.values() for text in batch],
                "arms": [arm.columns() for arm in arms],
                "patch": asdict(settings.patch),
            }
            if table == "text":
                parameters |= settings.divisions
            if table == "templates":
                # Ranks need whole rows of logits: to select, the log-probability is enough.
                parameters["ranks"] = half == REPORT
            units.append(Unit(table, f"{stage}-{index:03}", _MEASURES[table], parameters))
    return units


def _sequences(
    table: str, bridge: TransformerBridge, settings: CopyingSettings
) -> list[TokenSequence]:
    if table == "induction":
        return induction_sequences(bridge, settings)
    if table == "text":
        return text_sequences(bridge, settings)
    return template_sequences(bridge, settings)
