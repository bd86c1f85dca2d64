"""Trainings of readers, and what each is good for on held-out text."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...intervention.patch import NextTokenPatch
from ...intervention.teacher_forcing.log_probs import teacher_forced_log_probs
from ...intervention.training.options import TrainingOptions
from ...intervention.training.residual_store import ResidualStore
from ...intervention.training.train_patch import train_patch
from ...measures.behaviour import pair_distance
from ...model.fingerprint import fingerprint
from ..engine.json_values import from_values
from ..engine.work_units import unit_kind

Windows = Sequence[Mapping[str, Any]]

AS_TRAINED, TAKEN_AWAY = "as trained", "taken away"
"""What is written when a reader is measured: what it was trained with, or nothing."""

UNTRAINED = "none"
"""The source of the rows of the model as it is, without a reader and a write."""

ALL, COPYABLE, OTHER, SECOND = "all", "copyable", "other", "second copies"
CURVE = "on the way"
"""The scope of rows that tell the loss at a step, on windows that choose the best step."""


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

    `training` are arguments of `train_patch`, `texts` the windows to train on and to choose the
    best step by, and `material` what `measure_untrained` takes. `file` is a checkpoint of the
    training. The reader that did best on the windows that choose is measured; rows with the scope
    `CURVE` have the loss on those, in nats a token.
    """
    result = train_patch(
        bridge,
        [list(window["tokens"]) for window in texts["training"]],
        **training,
        adapt="attention",
        options=from_values(TrainingOptions, options),
        held_out=[list(window["tokens"]) for window in texts["choosing"]],
        checkpoint=file,
        save_every=options["evaluate_every"],
        store=_store(fingerprint(bridge), training["layer"]),
        progress=False,
    )
    curve = [
        _row(CURVE, AS_TRAINED, int(point["step"]), 0, "", float(point["loss"]), 1)
        for point in result.held_out.to_dict("records")
    ]
    assert result.reader is not None
    conditions: dict[str, NextTokenPatch | None]
    conditions = {AS_TRAINED: result.write.patch(seed=training["seed"])}
    if training["source"] == "true":
        conditions[TAKEN_AWAY] = result.write.patch(strength=0.0)
    with result.reader.on(bridge):
        measured = _measured(bridge, conditions, step=training["steps"], **material)
        rows = pd.DataFrame([*curve, *measured])
    return rows.assign(source=training["source"], seed=training["seed"])


@unit_kind("the model without a reader")
def measure_untrained(
    bridge: TransformerBridge,
    windows: Windows,
    copies: Sequence[Sequence[int]],
    batch: int,
) -> pd.DataFrame:
    """Rows as of `measure_reader`, of the model as it is, `batch` texts at a time."""
    rows = pd.DataFrame(
        _measured(bridge, {AS_TRAINED: None}, windows=windows, copies=copies, batch=batch, step=0)
    )
    return rows.assign(source=UNTRAINED, seed=0)


def forget_residuals() -> None:
    """Free the residuals that trainings in this process share."""
    _store.cache_clear()


@functools.lru_cache(maxsize=1)
def _store(_weights: str, _layer: int) -> ResidualStore:
    return ResidualStore()


def _measured(
    bridge: TransformerBridge,
    conditions: Mapping[str, NextTokenPatch | None],
    *,
    windows: Windows,
    copies: Sequence[Sequence[int]],
    batch: int,
    step: int,
) -> Iterator[dict[str, Any]]:
    tokens = torch.tensor([list(window["tokens"]) for window in windows])
    pairs = pair_distance(tokens)[:, :-1] > 0
    nats = _nats(bridge, conditions, tokens, batch)
    scopes = {ALL: torch.ones_like(pairs), COPYABLE: pairs, OTHER: ~pairs}
    clusters = [str(window["cluster"]) for window in windows]
    said = torch.tensor([list(text) for text in copies])
    again = torch.zeros_like(said[:, 1:], dtype=torch.bool)
    # The first token of the second copy is not to be foreseen.
    again[:, -(said.shape[1] // 2 - 1) :] = True
    parts = [(scope, nats, counted, clusters) for scope, counted in scopes.items()]
    numbers = [f"copy {number}" for number in range(len(copies))]
    parts.append((SECOND, _nats(bridge, conditions, said, batch), again, numbers))
    for scope, values, counted, names in parts:
        for condition, lost in zip(conditions, values, strict=True):
            totals = lost.double().where(counted, 0.0).sum(1).tolist()
            counts = counted.sum(1).tolist()
            for row, (total, count) in enumerate(zip(totals, counts, strict=True)):
                yield _row(scope, condition, step, row, names[row], total, count)


def _nats(
    bridge: TransformerBridge,
    conditions: Mapping[str, NextTokenPatch | None],
    tokens: Int[Tensor, "text pos"],
    batch: int,
) -> Float[Tensor, "condition text next"]:
    found = [
        -teacher_forced_log_probs(bridge, tokens[some], list(conditions.values()), text_seeds=some)
        for some in torch.arange(len(tokens)).split(batch)
    ]
    return torch.cat(found, dim=1).cpu()


def _row(
    scope: str, condition: str, step: int, row: int, cluster: str, total: float, count: int
) -> dict[str, Any]:
    return {
        "scope": scope,
        "condition": condition,
        "step": step,
        "row": row,
        "cluster": cluster,
        "total": total,
        "count": count,
    }
