"""What the selection half chooses: the layers of the grid, and cell and controls of a question."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..design.conditions import TEMPERATURE, Arm, Cell, control_arms
from ..design.grid_cells import best_of_forms, most_specific, shortlist
from ..design.sequences import SELECTION
from ..design.totals import Totals, tagged
from ..engine.results import Tables
from .first_order import WORD, best_layers
from .questions import QUESTIONS
from .settings import CopyingSettings


def layers_of(settings: CopyingSettings, rows: Tables, table: str) -> tuple[int, ...]:
    """The layers of a table's grid: those of the settings, or those that its slopes choose."""
    if settings.layers is not None:
        return settings.layers
    found: set[int] = set()
    for question in QUESTIONS:
        if question.table == table and not question.chosen_by:
            of_question = rows[f"map_{table}"].query("scope == @question.scope")
            if question.scope == WORD:
                of_question = tagged(of_question, question.measure.tags)
            found |= {*best_layers(of_question, settings.mapped)}
    return tuple(sorted(found))


@dataclass(frozen=True)
class Choice:
    """The choices of the selection half for a question.

    Attributes:
        cell: of the shortlist, where the true source beats its best control by most.
        control: the control that did best there.
        tempered: the unpatched model at the temperature that did best.
        of_form: the best cell of each form for the true source.
    """

    cell: Cell
    control: Arm
    tempered: Arm
    of_form: Mapping[str, Cell]


def choices(settings: CopyingSettings, rows: Tables) -> Mapping[str, Choice]:
    """The choice that the selection half makes for each question."""
    lists = shortlists(settings, rows)
    selecting = {q.name: q for q in QUESTIONS}
    found = {}
    for question in QUESTIONS:
        chooser = selecting[question.chosen_by or question.name]
        totals = chooser.totals(rows, SELECTION)
        cell = most_specific(totals, lists[chooser.name])
        own = question.totals(rows, SELECTION)
        found[question.name] = Choice(
            cell,
            own.best(control_arms(cell)),
            best_tempered(own),
            best_of_forms(totals),
        )
    return found


def shortlists(settings: CopyingSettings, rows: Tables) -> dict[str, list[Cell]]:
    """For each question that chooses its own cell, the cells to be compared with controls."""
    return {
        question.name: shortlist(question.totals(rows, SELECTION), settings.shortlist)
        for question in QUESTIONS
        if not question.chosen_by
    }


def best_tempered(totals: Totals) -> Arm:
    """The temperature that did best."""
    return totals.best(arm for arm in totals.arms if arm.source == TEMPERATURE)
