"""A training of a patch as part of an experiment."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ....intervention.training.options import TrainingOptions
from ....intervention.training.result import TrainedPatch
from ....intervention.training.train_patch import train_patch
from ...engine.json_values import from_values
from ...engine.work_units import Unit
from ..shared_residuals import shared_residuals
from .losses import Windows
from .settings import TrainedPatchSettings
from .splits import CHOOSING, PRESERVED, TRAINING


def training_units(
    table: str,
    settings: TrainedPatchSettings,
    measure: Callable[..., pd.DataFrame],
    training: Mapping[str, Any],
    parameters: Mapping[str, Any],
) -> list[Unit]:
    """All trainings, seed by seed, so that a run that is stopped has complete seeds.

    `training` are the arguments of `train_patch` that all of them share, `parameters` the others of
    `measure`.
    """
    return [
        Unit(
            table,
            f"{source}-seed{seed}",
            measure,
            {"training": {"source": source, "seed": seed, **training}, **parameters},
            keeps_file=True,
        )
        for seed in settings.seeds
        for source in settings.sources
    ]


def trained(
    bridge: TransformerBridge,
    training: Mapping[str, Any],
    options: Mapping[str, Any],
    texts: Mapping[str, Windows],
    file: Path,
) -> TrainedPatch:
    """Train on some windows and choose the best step by others, with a checkpoint in `file`.

    `training` are arguments of `train_patch`, `options` the values of `TrainingOptions`, and
    `texts` is what `splits.to_train` returns.
    """
    return train_patch(
        bridge,
        _tokens(texts[TRAINING]),
        **training,
        options=from_values(TrainingOptions, options),
        held_out=_tokens(texts[CHOOSING]),
        preserve=_tokens(texts[PRESERVED]) if PRESERVED in texts else None,
        checkpoint=file,
        save_every=options["evaluate_every"],
        store=shared_residuals(bridge, training["layer"]),
        progress=False,
    )


def _tokens(windows: Windows) -> list[Sequence[int]]:
    return [list(window["tokens"]) for window in windows]
