"""Trainings of readers, and their losses on held-out text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ...intervention.patch import NextTokenPatch
from ..design.text_scopes import AS_TRAINED, TAKEN_AWAY
from ..design.trained_patches.losses import Windows, curve_rows, measured_losses
from ..design.trained_patches.trainings import trained
from ..engine.work_units import unit_kind


@unit_kind("training a reader")
def measure_reader(
    bridge: TransformerBridge,
    training: Mapping[str, Any],
    options: Mapping[str, Any],
    texts: Mapping[str, Windows],
    material: Mapping[str, Any],
    file: Path,
) -> pd.DataFrame:
    """Train a reader and measure it: sums of nats by window, scope and condition.

    `training` are arguments of `train_patch`, `texts` are the windows to train on and to choose the
    best step by, and `material` are arguments of `measured_losses`. `file` is a checkpoint of the
    training. The reader of the step that is best on the windows that choose is measured. Other rows
    are those of `curve_rows`, on these windows.
    """
    result = trained(bridge, training, options, texts, file)
    curve = curve_rows(result.held_out.to_dict("records"), options)
    assert result.reader is not None
    conditions: dict[str, NextTokenPatch | None]
    conditions = {AS_TRAINED: result.write.patch(seed=training["seed"])}
    if training["source"] == "true":
        conditions[TAKEN_AWAY] = result.write.patch(strength=0.0)
    with result.reader.on(bridge):
        measured = measured_losses(bridge, conditions, step=training["steps"], **material)
        rows = pd.DataFrame([*curve, *measured])
    return rows.assign(source=training["source"], seed=training["seed"])
