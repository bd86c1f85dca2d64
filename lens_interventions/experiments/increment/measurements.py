"""Trainings of the base and of increments, and what each is good for on held-out text."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ...intervention.training.options import TrainingOptions
from ...intervention.training.residual_store import ResidualStore
from ...intervention.training.result import TrainedPatch
from ...intervention.training.train_patch import train_patch
from ...model.fingerprint import fingerprint
from ..design.kept_writes import parse_write, write_bytes
from ..design.trained_patches.losses import AS_TRAINED, Windows, curve_rows, measured_losses
from ..engine.json_values import from_values
from ..engine.work_units import unit_kind

BASE = "base"
"""The source of the rows of the base alone."""

KNOWN = "current"
"""What the base writes: the token that stands at the position, which the model knows."""


@unit_kind("a base")
def measure_base(
    bridge: TransformerBridge,
    training: Mapping[str, Any],
    options: Mapping[str, Any],
    texts: Mapping[str, Windows],
    file: Path,
) -> pd.DataFrame:
    """Train a base: its loss on the way on the windows that choose, and the write's bytes.

    `training` are arguments of `train_patch`, `file` is a checkpoint. Losses are nats a token; the
    write is that of the best step.
    """
    result = _trained(bridge, {"source": KNOWN, **training}, options, texts, file)
    kept = write_bytes(result.write)
    rate = options["learning_rate"]
    return result.held_out[["step", "loss"]].assign(rate=rate, write=kept)


@unit_kind("a trial of an increment")
def measure_trial(
    bridge: TransformerBridge,
    base: str,
    training: Mapping[str, Any],
    options: Mapping[str, Any],
    texts: Mapping[str, Windows],
    file: Path,
) -> pd.DataFrame:
    """Train an increment on a `base`, a write as text: its loss on the windows that choose.

    The other arguments are those of `measure_base`.
    """
    result = _trained(bridge, {"base": parse_write(base), **training}, options, texts, file)
    return result.held_out[["step", "loss"]].assign(rate=options["learning_rate"])


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

    `base` is a write as text, `training` are arguments of `train_patch`, `material` is what
    `measured_losses` takes, `file` a checkpoint. Rows with the scope `CURVE` tell the loss on the
    windows that choose the best step.
    """
    result = _trained(bridge, {"base": parse_write(base), **training}, options, texts, file)
    conditions = {AS_TRAINED: result.write.patch(seed=training["seed"])}
    measured = measured_losses(bridge, conditions, step=training["steps"], **material)
    rows = pd.DataFrame([*curve_rows(result.held_out.to_dict("records")), *measured])
    return rows.assign(source=training["source"], seed=training["seed"])


@unit_kind("a base alone")
def measure_alone(
    bridge: TransformerBridge, base: str, material: Mapping[str, Any]
) -> pd.DataFrame:
    """Rows of `measured_losses` of the model with the base, a write as text, and no increment."""
    conditions = {AS_TRAINED: parse_write(base).patch()}
    rows = pd.DataFrame(measured_losses(bridge, conditions, step=0, **material))
    return rows.assign(source=BASE, seed=0)


def forget_residuals() -> None:
    """Free the residuals that trainings in this process share."""
    _store.cache_clear()


def _trained(
    bridge: TransformerBridge,
    training: Mapping[str, Any],
    options: Mapping[str, Any],
    texts: Mapping[str, Windows],
    file: Path,
) -> TrainedPatch:
    return train_patch(
        bridge,
        _tokens(texts["training"]),
        **training,
        options=from_values(TrainingOptions, options),
        held_out=_tokens(texts["choosing"]),
        checkpoint=file,
        save_every=options["evaluate_every"],
        store=_store(fingerprint(bridge), training["layer"]),
        progress=False,
    )


def _tokens(windows: Windows) -> list[Sequence[int]]:
    return [list(window["tokens"]) for window in windows]


@functools.lru_cache(maxsize=1)
def _store(_weights: str, _layer: int) -> ResidualStore:
    return ResidualStore()
