"""What units do: train one write, or measure sequences under some."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ...intervention.training.options import TrainingOptions
from ...intervention.training.train_patch import train_patch
from ...intervention.training.windows import ResidualStore
from ...model.fingerprint import fingerprint
from ..design.conditions import ARM_COLUMNS, NO_PATCH
from ..design.copy_rows import measure_induction, measure_templates, measure_text
from ..engine.json_values import from_values
from ..engine.units import unit_kind
from .writes import LearnedPatches, Training, parse_writes, write_bytes

Values = Mapping[str, Any]

NO_SEED = -1
"""The seed of rows without a patch."""

_MEASURES: dict[str, Callable[..., pd.DataFrame]] = {
    "induction": measure_induction,
    "templates": functools.partial(measure_templates, ranks=False),
    "text": measure_text,
}


@unit_kind("training")
def measure_training(
    bridge: TransformerBridge, training: Values, texts: Sequence[Sequence[int]], options: Values
) -> pd.DataFrame:
    """Train a write: a row for each step and each evaluation, and one for what was learned.

    `kind` is "step", "held-out" or "write"; losses are nats per token; `write` is a file's bytes.
    """
    made = Training.from_columns(training)
    result = train_patch(
        bridge,
        [list(text) for text in texts],
        layer=made.layer,
        rank=made.rank,
        source=made.source,
        steps=made.steps,
        seed=made.seed,
        options=from_values(TrainingOptions, options),
        store=_store(fingerprint(bridge), made.layer),
        progress=False,
    )
    last = {"step": result.settings["best_step"], "write": write_bytes(result.write)}
    rows = pd.concat(
        [
            result.curve.assign(kind="step"),
            result.held_out.assign(kind="held-out"),
            pd.DataFrame([{**last, "kind": "write"}]),
        ],
        ignore_index=True,
    )
    return rows.assign(**made.columns())


@unit_kind("copying under writes")
def measure_writes(
    bridge: TransformerBridge, table: str, writes: Mapping[str, Values], **parameters: Any
) -> pd.DataFrame:
    """A table of the copying experiment, without a patch and with each write at strength 1.

    The arm's columns are those of `Training.arm`, and `seed` is that of the training.
    """
    patches, arms, trainings = conditions(writes)
    arms = [NO_PATCH.columns(), *arms]
    rows = _MEASURES[table](bridge, arms=arms, patch=patches, **parameters)
    return named_by_seed(rows, trainings)


def conditions(
    writes: Mapping[str, Values],
) -> tuple[LearnedPatches, list[dict[str, Any]], list[Training]]:
    """Patches of writes as parameters, the columns of an arm for each, and their trainings."""
    patches = LearnedPatches(writes=parse_writes(writes))
    trainings = list(patches.writes or {})
    return patches, [training.own_arm.columns() for training in trainings], trainings


def named_by_seed(rows: pd.DataFrame, trainings: Sequence[Training]) -> pd.DataFrame:
    """Rows of the trainings' own arms as rows of `Training.arm`, with a column `seed`."""
    seeds = {training.own_arm.mode: training.seed for training in trainings}
    modes = {training.own_arm.mode: training.mode for training in trainings}
    return rows.assign(
        seed=rows["mode"].map(seeds).fillna(NO_SEED).astype(int),
        mode=rows["mode"].replace(modes),
    )


def over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `measure_writes` with the mean over seeds for each arm, sequence and category."""
    keys = ["half", "sequence", "cluster", *ARM_COLUMNS, "measure", "category"]
    grouped = rows.groupby(keys, sort=False)
    return grouped.agg(total=("total", "mean"), count=("count", "first")).reset_index()


def forget_residuals() -> None:
    """Free what trainings in this process share."""
    _store.cache_clear()


@functools.lru_cache(maxsize=1)
def _store(_weights: str, _layer: int) -> ResidualStore:
    # Trainings at one layer come one after the other; more than one layer's is too much to keep.
    return ResidualStore()
