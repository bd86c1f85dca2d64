"""The stages: a first-order map, the grid and the controls on the selection half, then the report.

The map measures how a weak patch at every layer would change the loss, and chooses the layers of
the grid. The grid is measured with the true source alone, in the plain form and in the others. Each
question shortlists a few of the layers' best cells, and all controls are measured at these, on the
same half. It chooses the cell at which the true source beats its best control by most.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ...model.points import require_blocks
from ..design.conditions import NO_PATCH, Arm, Cell, control_arms, grid, source_arms
from ..design.copy_rows import (
    measure_induction,
    measure_repeats,
    measure_templates,
    measure_text,
)
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
from .choice import best_tempered, choices, layers_of, shortlists
from .first_order import map_sources, measure_map
from .questions import AT_SURPRISES, QUESTIONS, REPEATS, TABLES
from .settings import CopyingSettings
from .word_in_lens import measure_lens

# Times the best temperature of the settings. They reach far, as the best may be at an end.
_FINER = (0.6, 0.7, 0.8, 0.9, 0.95, 1.05, 1.15, 1.3, 1.6)

_MEASURES: dict[str, Callable[..., pd.DataFrame]] = {
    "induction": measure_induction,
    "templates": measure_templates,
    "text": measure_text,
    REPEATS: measure_repeats,
    "lens": measure_lens,
}


def map_slopes(bridge: TransformerBridge, settings: CopyingSettings, _rows: Tables) -> list[Unit]:
    """Slopes at every layer on the selection half, unless the settings name layers.

    Raises `ValueError` if they name one that the model does not have.
    """
    if settings.layers is not None:
        require_blocks(settings.layers, int(bridge.cfg.n_layers))
        return []
    units = []
    for table in TABLES:
        scopes = sorted({q.scope for q in QUESTIONS if q.table == table and not q.chosen_by})
        for index, batch in enumerate(_batches(table, bridge, settings, SELECTION)):
            parameters = {
                "sequences": [text.values() for text in batch],
                "scopes": scopes,
                "sources": map_sources(),
                "patch": asdict(settings.patch),
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
            # The question here is about positions, so the plain form is left out.
            strengths = sorted({*settings.strengths, *settings.form_strengths})
            plain, forms = grid(layers, strengths, FORMS[AT_SURPRISES].modes, [AT_SURPRISES]), []
        tempered = map(Arm.tempered, settings.temperatures)
        arms_of[table] = [NO_PATCH, *tempered, *map(Arm.at, [*plain, *forms])]
    return _units_of(bridge, settings, SELECTION, "grid", arms_of)


def compare_controls(
    bridge: TransformerBridge, settings: CopyingSettings, rows: Tables
) -> list[Unit]:
    """The controls at the shortlisted cells, still on the selection half.

    Temperatures around the best one of the settings are tried too, to refine it.
    """
    arms_of = {
        table: [arm for cell in cells for arm in control_arms(cell)]
        for table, cells in _by_table(shortlists(settings, rows)).items()
    }
    coarse = {round(temperature, 4) for temperature in settings.temperatures}
    for question in QUESTIONS:
        best = best_tempered(question.totals(rows, SELECTION))
        finer = {round(best.strength * factor, 4) for factor in _FINER}
        known = arms_of[question.table]
        # The rows of the coarse grid are on this half too, and an arm is measured once.
        new = map(Arm.tempered, sorted(finer - coarse))
        known += [arm for arm in new if arm not in known]
    return _units_of(bridge, settings, SELECTION, "controls", arms_of)


def measure_report_half(
    bridge: TransformerBridge, settings: CopyingSettings, rows: Tables
) -> list[Unit]:
    """Every source at the chosen cells, the best cell of each form, and the lens.

    The lens is read on templates, at the cell that was chosen for rare words.
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
            if table == "text":
                parameters |= settings.divisions
            if table == REPEATS:
                parameters["surprising"] = settings.surprising
            if table == "templates":
                # Ranks need whole rows of logits; for the selection, the log-probability is enough.
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
