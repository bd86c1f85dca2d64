"""The stages: train a base, then increments on top of it, each after a trial of rates."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ...model.points import require_blocks
from ..design.kept_writes import encoded_write
from ..design.trained_patches.losses import UNTRAINED, measure_untrained
from ..design.trained_patches.own_texts import writing_stage
from ..design.trained_patches.splits import to_measure, to_train, windows_by_part
from ..design.trained_patches.trainings import training_units
from ..engine.results import Tables
from ..engine.run import Stage
from ..engine.work_units import Unit
from .measurements import BASE, KNOWN, measure_alone, measure_base, measure_increment, measure_trial
from .settings import IncrementSettings

PILOT, FIRST, TRIAL, TABLE = "pilot", "base", "trial", "training"
"""The tables: rates of the base, its training, rates of increments, and all that is compared."""


def best_rate(tried: pd.DataFrame) -> float:
    """The learning rate with the lowest loss at the end, on the windows that choose.

    Raises `ValueError` if every training diverged: no loss is a finite number at the end.
    """
    ends = tried[tried["step"] == tried["step"].max()]
    finite = np.isfinite(ends["loss"].to_numpy(np.float64))
    if not finite.any():
        rates = ", ".join(f"{rate:g}" for rate in ends["rate"])
        raise ValueError(
            f"the trainings at the learning rates {rates} all ended in a loss that is no finite "
            "number: give lower learning_rates, or load the model in float32"
        )
    ends = ends[finite]
    return float(ends["rate"].to_numpy()[ends["loss"].to_numpy().argmin()])


def try_rates(
    bridge: TransformerBridge, settings: IncrementSettings, rows: Tables
) -> Sequence[Unit]:
    """A short training of the base for each learning rate.

    Raises `ValueError` for a layer that the model does not have, or too little text.
    """
    require_blocks([settings.layer], int(bridge.cfg.n_layers))
    texts = to_train(windows_by_part(bridge, settings), rows)
    return _trials(PILOT, settings, KNOWN, texts)


def train_base(
    bridge: TransformerBridge, settings: IncrementSettings, rows: Tables
) -> Sequence[Unit]:
    """The training of the base, at the best rate."""
    rate = best_rate(rows[PILOT])
    texts = to_train(windows_by_part(bridge, settings), rows)
    parameters = _first_training(settings, KNOWN, settings.base_steps, rate, texts)
    return [Unit(FIRST, BASE, measure_base, parameters, keeps_file=True)]


def try_increments(
    bridge: TransformerBridge, settings: IncrementSettings, rows: Tables
) -> Sequence[Unit]:
    """A short training of the true token's increment for each learning rate.

    All increments are then trained at the rate that is best for the true token.
    """
    texts = to_train(windows_by_part(bridge, settings), rows)
    return _trials(TRIAL, settings, "true", texts, base=_base(rows))


def train_increments(
    bridge: TransformerBridge, settings: IncrementSettings, rows: Tables
) -> Sequence[Unit]:
    """The model as it is, with the base, and with every increment; seed by seed."""
    windows = windows_by_part(bridge, settings)
    material = to_measure(bridge, settings, windows)
    base = _base(rows)
    common = {
        "base": base,
        "options": asdict(settings.options_at(best_rate(rows[TRIAL]))),
        "texts": to_train(windows, rows),
        "material": material,
    }
    same = {"layer": settings.layer, "rank": settings.rank, "steps": settings.steps}
    return [
        Unit(TABLE, UNTRAINED, measure_untrained, material),
        Unit(TABLE, BASE, measure_alone, {"base": base, "material": material}),
        *training_units(TABLE, settings, measure_increment, same, common),
    ]


STAGES: Mapping[str, Stage] = {
    "own texts": writing_stage,
    "learning rates": try_rates,
    "base": train_base,
    "learning rates of increments": try_increments,
    "increments": train_increments,
}


def _base(rows: Tables) -> str:
    return encoded_write(bytes(rows[FIRST]["write"].iloc[0]))


def _trials(
    table: str, settings: IncrementSettings, source: str, texts: Mapping[str, Any], **base: str
) -> list[Unit]:
    """A short training for each learning rate, on a `base` if there is one."""
    return [
        Unit(
            table,
            f"rate{number}",
            measure_trial,
            {**base, **_first_training(settings, source, settings.pilot_steps, rate, texts)},
            keeps_file=True,
        )
        for number, rate in enumerate(settings.learning_rates)
    ]


def _first_training(
    settings: IncrementSettings, source: str, steps: int, rate: float, texts: Mapping[str, Any]
) -> dict[str, Any]:
    """The parameters of a training with the first seed."""
    return {
        "training": {
            "source": source,
            "layer": settings.layer,
            "rank": settings.rank,
            "steps": steps,
            "seed": settings.seeds[0],
        },
        "options": asdict(settings.options_at(rate)),
        "texts": texts,
    }
