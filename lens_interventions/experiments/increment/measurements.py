"""Trainings of the base and of increments, and their losses on held-out text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ...intervention.training.loop import DivergenceError
from ...intervention.training.result import TrainedPatch
from ..design.kept_writes import decoded_write, write_bytes
from ..design.text_scopes import AS_TRAINED
from ..design.trained_patches.losses import Windows, curve_rows, measured_losses, penalised
from ..design.trained_patches.trainings import trained
from ..engine.work_units import unit_kind

BASE = "base"
"""The source of the rows of the base alone."""

KNOWN = "current"
"""What the base writes: the token that stands at the position, which the model knows."""


@unit_kind("a trial of a learning rate")
def measure_trial(
    bridge: TransformerBridge,
    training: Mapping[str, Any],
    options: Mapping[str, Any],
    texts: Mapping[str, Windows],
    file: Path,
    base: str | None = None,
) -> pd.DataFrame:
    """Train a write, on a `base` if one is given as text: rate, step and loss in nats a token.

    `training` are arguments of `train_patch`, and `file` is a checkpoint. The loss is that on the
    windows that choose. It is NaN at the end of a training that diverged. What is penalised has a
    column too.
    """
    below = {} if base is None else {"base": decoded_write(base)}
    try:
        return _curve(trained(bridge, {**below, **training}, options, texts, file), options)
    except DivergenceError:
        end = {"step": training["steps"], "loss": float("nan"), "rate": options["learning_rate"]}
        return pd.DataFrame([end])


@unit_kind("a base")
def measure_base(
    bridge: TransformerBridge,
    training: Mapping[str, Any],
    options: Mapping[str, Any],
    texts: Mapping[str, Windows],
    file: Path,
) -> pd.DataFrame:
    """Rows as in `measure_trial`, with the bytes of the best step's write as `write`."""
    result = trained(bridge, training, options, texts, file)
    return _curve(result, options).assign(write=write_bytes(result.write))


@unit_kind("an increment")
def measure_increment(
    bridge: TransformerBridge,
    base: str,
    training: Mapping[str, Any],
    options: Mapping[str, Any],
    texts: Mapping[str, Windows],
    material: Mapping[str, Any],
    file: Path,
) -> pd.DataFrame:
    """Train an increment and measure it with its base: rows of `measured_losses`.

    `base` is a write as text, `training` are arguments of `train_patch`, `material` are arguments
    of `measured_losses`, and `file` is a checkpoint. Other rows are those of `curve_rows`, on the
    windows that choose the best step.
    """
    result = trained(bridge, {"base": decoded_write(base), **training}, options, texts, file)
    conditions = {AS_TRAINED: result.write.patch(seed=training["seed"])}
    measured = measured_losses(bridge, conditions, step=training["steps"], **material)
    rows = pd.DataFrame([*curve_rows(result.held_out.to_dict("records"), options), *measured])
    return rows.assign(source=training["source"], seed=training["seed"])


@unit_kind("a base alone")
def measure_alone(
    bridge: TransformerBridge, base: str, material: Mapping[str, Any]
) -> pd.DataFrame:
    """Rows of `measured_losses` for the model with the base, a write as text, and no increment."""
    conditions = {AS_TRAINED: decoded_write(base).patch()}
    rows = pd.DataFrame(measured_losses(bridge, conditions, step=0, **material))
    return rows.assign(source=BASE, seed=0)


def _curve(result: TrainedPatch, options: Mapping[str, Any]) -> pd.DataFrame:
    told = ["step", "loss", *penalised(options)]
    return result.held_out[told].assign(rate=options["learning_rate"])
