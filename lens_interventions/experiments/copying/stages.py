"""The stages: a first-order map, the grid and the controls on the selection half, then the report.

The map measures how a weak patch at every layer would change the loss, and chooses the layers of
the grid. The grid is measured with the true source alone, in the plain form and in the others. Each
question shortlists the best few of the best cells of the layers, and all controls are measured at
these, on the same half. It chooses the cell where the true source beats its best control by most.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ..design.conditions import (
    NO_PATCH,
    TEMPERATURE,
    Arm,
    Cell,
    control_arms,
    grid,
    source_arms,
)
from ..design.contrasts import (
    Measure,
    Totals,
    best_control,
    best_of_forms,
    most_specific,
    shortlist,
    tagged,
    totals_of,
)
from ..design.copy_rows import measure_induction, measure_templates, measure_text
from ..design.forms import FORMS
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
from .first_order import WORD, best_layers, map_sources, measure_map
from .settings import CopyingSettings
from .word_in_lens import measure_lens

REPEATS = "repeats"
"""The table of later repeats of surprising tokens."""

AT_SURPRISES = "surprised output"
"""The form of the patch there."""

# Times the best temperature of the settings.
_FINER = (0.7, 0.8, 0.9, 0.95, 1.05)

TABLES = ("induction", "templates", "text", REPEATS)
"""Rows that answer questions."""


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
        scope: the predictions that it is about, as slopes name them.
    """

    name: str
    text: str
    table: str
    measure: Measure
    chosen_by: str
    material: str
    scope: str


QUESTIONS = (
    Question(
        "induction",
        "Does seeing the true tokens help to copy random tokens said before?",
        "induction",
        Measure("loss"),
        "induction",
        "loss on the second copy of random tokens",
        "copyable",
    ),
    *(
        Question(
            f"{kind} words",
            f"Does it help to say a {kind} word again where the sentence calls for it?",
            "templates",
            Measure("log_prob", frozenset({kind}), lower_is_better=False),
            f"{kind} words",
            f"log-probability of a {kind} word at the copy",
            WORD,
        )
        for kind in ("rare", "common")
    ),
    Question(
        "copyable",
        "Does it help on tokens of natural text that could have been copied?",
        "text",
        Measure("loss", frozenset({"copyable"})),
        "copyable",
        "loss on tokens that complete an earlier pair",
        "copyable",
    ),
    Question(
        "other",
        "What does that do to the other tokens of natural text?",
        "text",
        Measure("loss", frozenset({"other"})),
        "copyable",
        "loss on tokens that do not complete an earlier pair",
        "other",
    ),
    Question(
        "surprise",
        "Does it help right after something surprising really happened?",
        "text",
        Measure("loss", frozenset({"surprise-now"})),
        "surprise",
        "loss on the token after a surprising one",
        "after_surprise",
    ),
    Question(
        "repeats",
        "Does seeing a surprising token where it first stood help to say it again later?",
        REPEATS,
        Measure("loss", frozenset({"repeat"})),
        "repeats",
        "loss on later repeats of a token that was surprising where it first stood; the patch is "
        "there alone",
        "repeated_surprise",
    ),
)

_MEASURES: dict[str, Callable[..., pd.DataFrame]] = {
    "induction": measure_induction,
    "templates": measure_templates,
    "text": measure_text,
    REPEATS: measure_text,
    "lens": measure_lens,
}


def map_slopes(bridge: TransformerBridge, settings: CopyingSettings, _rows: Tables) -> list[Unit]:
    """Slopes at every layer on the selection half, unless the settings name layers."""
    if settings.layers is not None:
        return []
    units = []
    for table in TABLES:
        scopes = sorted({q.scope for q in QUESTIONS if q.table == table and q.chosen_by == q.name})
        for index, batch in enumerate(_batches(table, bridge, settings, SELECTION)):
            parameters = {
                "sequences": [text.values() for text in batch],
                "scopes": scopes,
                "sources": map_sources(),
                "first_position": settings.patch.first_position,
                "seed": settings.patch.seed,
            }
            units.append(Unit(f"map_{table}", f"{index:03}", measure_map, parameters))
    return units


def select(bridge: TransformerBridge, settings: CopyingSettings, rows: Tables) -> list[Unit]:
    """The true source on the whole grid, on the selection half."""
    arms_of = {}
    for table in TABLES:
        layers = layers_of(settings, rows, table)
        plain = grid(layers, settings.strengths, settings.modes)
        forms = [
            cell
            for form in settings.forms
            for cell in grid(layers, settings.form_strengths, FORMS[form].modes, [form])
        ]
        if table == REPEATS:
            # There the positions are the question, so the plain form has no part in it.
            strengths = sorted({*settings.strengths, *settings.form_strengths})
            plain, forms = grid(layers, strengths, FORMS[AT_SURPRISES].modes, [AT_SURPRISES]), []
        tempered = map(Arm.tempered, settings.temperatures)
        arms_of[table] = [NO_PATCH, *tempered, *map(Arm.at, [*plain, *forms])]
    return _units_of(bridge, settings, SELECTION, "grid", arms_of)


def layers_of(settings: CopyingSettings, rows: Tables, table: str) -> tuple[int, ...]:
    """The layers of a table's grid: those of the settings, or those that its slopes choose."""
    if settings.layers is not None:
        return settings.layers
    found: set[int] = set()
    for question in QUESTIONS:
        if question.table == table and question.chosen_by == question.name:
            of_question = rows[f"map_{table}"].query("scope == @question.scope")
            if question.scope == WORD:
                of_question = tagged(of_question, question.measure.tags)
            found |= {*best_layers(of_question, settings.mapped)}
    return tuple(sorted(found))


def compare_controls(
    bridge: TransformerBridge, settings: CopyingSettings, rows: Tables
) -> list[Unit]:
    """The controls at the shortlisted cells, still on the selection half.

    Temperatures around the best of the settings are tried too, so that it is fitted.
    """
    arms_of = {
        table: [arm for cell in cells for arm in control_arms(cell)]
        for table, cells in _by_table(shortlists(settings, rows)).items()
    }
    for question in QUESTIONS:
        best = _best_tempered(
            totals_of(rows[question.table], question.measure, SELECTION), question
        )
        finer = [Arm.tempered(round(best.strength * factor, 4)) for factor in _FINER]
        known = arms_of[question.table]
        known += [arm for arm in finer if arm not in known]
    return _units_of(bridge, settings, SELECTION, "controls", arms_of)


def _best_tempered(totals: Totals, question: Question) -> Arm:
    tempered = [arm for arm in totals.arms if arm.source == TEMPERATURE]
    best = min if question.measure.lower_is_better else max
    return best(tempered, key=totals.mean)


def measure_report_half(
    bridge: TransformerBridge, settings: CopyingSettings, rows: Tables
) -> list[Unit]:
    """Every source at the chosen cells, the best cell of each form, and the lens.

    The lens is read on templates, at the cell chosen for rare words.
    """
    chosen = choices(settings, rows)
    cells = _by_table({name: [choice.cell] for name, choice in chosen.items()})
    arms_of: dict[str, Sequence[Arm]] = {}
    for table, of_table in cells.items():
        own = [q.name for q in QUESTIONS if q.table == table]
        tempered = [chosen[name].tempered for name in own]
        sources = [arm for cell in of_table for arm in source_arms(cell)]
        formed = [Arm.at(cell) for name in own for cell in chosen[name].of_form.values()]
        arms_of[table] = list(dict.fromkeys([NO_PATCH, *tempered, *sources, *formed]))
    words = chosen["rare words"]
    arms_of["lens"] = [NO_PATCH, Arm.at(words.cell), words.control]
    return _units_of(bridge, settings, REPORT, "report", arms_of)


STAGES: dict[str, Stage] = {
    "first-order map": map_slopes,
    "selection half": select,
    "controls": compare_controls,
    "report half": measure_report_half,
}


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
    """For each question what the selection half chose."""
    lists = shortlists(settings, rows)
    selecting = {q.name: q for q in QUESTIONS}
    found = {}
    for question in QUESTIONS:
        chooser = selecting[question.chosen_by]
        lower = chooser.measure.lower_is_better
        totals = totals_of(rows[chooser.table], chooser.measure, SELECTION)
        cell = most_specific(totals, lists[chooser.name], lower_is_better=lower)
        own = totals_of(rows[question.table], question.measure, SELECTION)
        found[question.name] = Choice(
            cell,
            best_control(own, cell, lower_is_better=lower),
            _best_tempered(own, question),
            best_of_forms(totals, lower_is_better=lower),
        )
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
        for index, batch in enumerate(_batches(table, bridge, settings, half)):
            parameters: dict[str, Any] = {
                "sequences": [text.values() for text in batch],
                "arms": [arm.columns() for arm in arms],
                "patch": asdict(settings.patch),
            }
            if table in ("text", REPEATS):
                parameters |= settings.divisions
            if table == "templates":
                # Ranks need whole rows of logits: to select, the log-probability is enough.
                parameters["ranks"] = half == REPORT
            units.append(Unit(table, f"{stage}-{index:03}", _MEASURES[table], parameters))
    return units


def _batches(
    table: str, bridge: TransformerBridge, settings: CopyingSettings, half: str
) -> list[list[TokenSequence]]:
    sequences = _sequences(table, bridge, settings)
    require_both_halves(sequences, table)
    return batches(sequences, half, settings.batch)


def _sequences(
    table: str, bridge: TransformerBridge, settings: CopyingSettings
) -> list[TokenSequence]:
    if table == "induction":
        return induction_sequences(bridge, settings)
    if table == "text":
        return text_sequences(bridge, settings)
    if table == REPEATS:
        return text_sequences(bridge, settings.repeats)
    return template_sequences(bridge, settings)
