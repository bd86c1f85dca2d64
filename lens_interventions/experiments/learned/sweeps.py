"""Tables of the sweeps: the true source against its best control by layer and by rank."""

from collections.abc import Sequence

import pandas as pd

from ..design.conditions import NO_PATCH, Arm
from ..design.contrasts import contrast
from ..design.sequences import REPORT, SELECTION
from ..design.totals import Measure, Totals, totals_of
from ..engine.results import Tables
from .questions import each_token_once
from .settings import LearnedSettings
from .stages import best_layer, best_of_sweeps, layer_trainings, rank_trainings, swept_controls
from .writes import Training

_MATERIALS = {"random copies": "induction", "text": "text"}


def sweep_tables(settings: LearnedSettings, rows: Tables) -> dict[str, pd.DataFrame]:
    """The tables "layers" and "ranks" on the selection half, and "best" on the report half.

    Only what was swept has a table. `rows` are means over seeds.
    """
    tables = {}
    if settings.sweep_layers:
        tables["layers"] = _swept(settings, rows, layer_trainings(settings), SELECTION)
    if settings.sweep_ranks:
        trainings = rank_trainings(settings, best_layer(settings, rows))
        tables["ranks"] = _swept(settings, rows, trainings, SELECTION)
    if settings.sweep_layers:
        tables["best"] = _swept(settings, rows, [best_of_sweeps(settings, rows)], REPORT)
    return tables


def _swept(
    settings: LearnedSettings, rows: Tables, trainings: Sequence[Training], half: str
) -> pd.DataFrame:
    """The true source and its best control, each minus no patch, and one minus the other.

    The best control is that of the sweep which does best on the selection half.
    """
    found = []
    for material, table in _MATERIALS.items():
        totals = _totals(rows, table, half)
        selecting = _totals(rows, table, SELECTION)
        for training in trainings:
            if training.source != "true":
                continue
            arm, control = training.arm, selecting.best(swept_controls(settings, training))
            for one, other in ((arm, control), (arm, NO_PATCH), (control, NO_PATCH)):
                found.append(
                    {
                        "material": material,
                        "half": half,
                        "layer": training.layer,
                        "rank": training.rank or 0,
                        "steps": training.steps,
                        **_row(settings, totals, one, other),
                    }
                )
    return pd.DataFrame(found)


def _totals(rows: Tables, table: str, half: str) -> Totals:
    found = rows[table]
    if table == "text":
        found = each_token_once(found)
    return totals_of(found, Measure("loss"), half)


def _row(settings: LearnedSettings, totals: Totals, arm: Arm, reference: Arm) -> dict:
    compared = contrast(totals, arm, reference, settings.resampling)
    return {"source": arm.source, "minus": reference.source, **compared.columns()}
