"""Copying under writes: the rows of each training's patch, and their means over seeds."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ..design.conditions import ARM_COLUMNS, NO_PATCH
from ..design.copy_rows import measure_induction, measure_templates, measure_text
from ..engine.json_values import Values
from ..engine.work_units import unit_kind
from .writes import LearnedPatches, Training, parse_writes

NO_SEED = -1
"""The seed of rows without a patch."""

_MEASURES: dict[str, Callable[..., pd.DataFrame]] = {
    "induction": measure_induction,
    "templates": functools.partial(measure_templates, ranks=False),
    "text": measure_text,
}


@unit_kind("copying under writes")
def measure_writes(
    bridge: TransformerBridge, table: str, writes: Mapping[str, Values], **parameters: Any
) -> pd.DataFrame:
    """Rows of copying, without a patch and with each write at strength 1.

    `table` names the rows: "induction", "templates" or "text". The columns of an arm are those of
    `Training.arm`, and `seed` is the seed of the training.
    """
    patches, arms, trainings = conditions(writes)
    arms = [NO_PATCH.columns(), *arms]
    rows = _MEASURES[table](bridge, arms=arms, patch=patches, **parameters)
    return named_by_seed(rows, trainings)


def conditions(
    writes: Mapping[str, Values],
) -> tuple[LearnedPatches, list[dict[str, Any]], list[Training]]:
    """The patches of writes, the columns of each one's arm, and their trainings."""
    patches = LearnedPatches(writes=parse_writes(writes))
    trainings = list(patches.writes)
    return patches, [training.own_arm.columns() for training in trainings], trainings


def named_by_seed(rows: pd.DataFrame, trainings: Sequence[Training]) -> pd.DataFrame:
    """Replace the trainings' own arms by their common arms and a column `seed`."""
    seeds = {training.own_arm.mode: training.seed for training in trainings}
    modes = {training.own_arm.mode: training.mode for training in trainings}
    return rows.assign(
        seed=rows["mode"].map(seeds).fillna(NO_SEED).astype(int),
        mode=rows["mode"].replace(modes),
    )


def over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of the rows of `measure_writes`, by arm, sequence and category."""
    keys = ["half", "sequence", "cluster", "crossed", *ARM_COLUMNS, "measure", "category"]
    grouped = rows.groupby(keys, sort=False)
    return grouped.agg(total=("total", "mean"), count=("count", "first")).reset_index()
