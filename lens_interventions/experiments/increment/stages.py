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
    return [
        Unit(
            PILOT,
            f"rate{number}",
            measure_trial,
            _base_training(settings, rate, settings.pilot_steps, texts),
            keeps_file=True,
        )
        for number, rate in enumerate(settings.learning_rates)
    ]


def train_base(
    bridge: TransformerBridge, settings: IncrementSettings, rows: Tables
) -> Sequence[Unit]:
    """The training of the base, at the best rate."""
    rate = best_rate(rows[PILOT])
    texts = to_train(windows_by_part(bridge, settings), rows)
    parameters = _base_training(settings, rate, settings.base_steps, texts)
    return [Unit(FIRST, BASE, measure_base, parameters, keeps_file=True)]


def try_increments(
    bridge: TransformerBridge, settings: IncrementSettings, rows: Tables
) -> Sequence[Unit]:
    """A short training of the true token's increment for each learning rate.

    All increments are then trained at the rate that is best for the true token.
    """
    texts = to_train(windows_by_part(bridge, settings), rows)
    same = {"layer": settings.layer, "rank": settings.rank, "steps": settings.pilot_steps}
    return [
        Unit(
            TRIAL,
            f"rate{number}",
            measure_trial,
            {
                "base": _base(rows),
                "training": {"source": "true", "seed": settings.seeds[0], **same},
                "options": asdict(settings.options_at(rate)),
                "texts": texts,
            },
            keeps_file=True,
        )
        for number, rate in enumerate(settings.learning_rates)
    ]


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
        *(
            Unit(
                TABLE,
                f"{source}-seed{seed}",
                measure_increment,
                {"training": {"source": source, "seed": seed, **same}, **common},
                keeps_file=True,
            )
            for seed in settings.seeds
            for source in settings.sources
        ),
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


def _base_training(
    settings: IncrementSettings, rate: float, steps: int, texts: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "training": {
            "source": KNOWN,
            "layer": settings.layer,
            "rank": settings.rank,
            "steps": steps,
            "seed": settings.seeds[0],
        },
        "options": asdict(settings.options_at(rate)),
        "texts": texts,
    }
