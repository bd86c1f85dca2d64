"""The measures of trained patches: the loss on held-out windows and on second copies."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ....intervention.patch import NextTokenPatch
from ....intervention.teacher_forcing.log_probs import teacher_forced_log_probs
from ...engine.work_units import unit_kind
from ..rows_of_sums import masked_sums, sum_rows
from ..text_scopes import AS_TRAINED, SECOND, scopes_of, second_copy

Windows = Sequence[Mapping[str, Any]]

UNTRAINED = "none"
"""The source of the rows of the model as it is, without anything that was trained."""

CURVE = "on the way"
"""The scope of rows that tell the loss at a step, on windows that choose the best step."""

PENALISED = {"write_length": "write_penalty", "kl": "change_penalty"}
"""The scopes of rows that tell what was penalised at a step, and the options that penalise it."""


@unit_kind("the model without a reader")
def measure_untrained(
    bridge: TransformerBridge,
    windows: Windows,
    copies: Sequence[Sequence[int]],
    batch: int,
) -> pd.DataFrame:
    """Rows of `measured_losses` for the model as it is, with the columns source and seed."""
    rows = pd.DataFrame(
        measured_losses(
            bridge, {AS_TRAINED: None}, windows=windows, copies=copies, batch=batch, step=0
        )
    )
    return rows.assign(source=UNTRAINED, seed=0)


def measured_losses(
    bridge: TransformerBridge,
    conditions: Mapping[str, NextTokenPatch | None],
    *,
    windows: Windows,
    copies: Sequence[Sequence[int]],
    batch: int,
    step: int,
) -> Iterator[dict[str, Any]]:
    """Sums of nats by condition, scope and text.

    Each row has scope, condition, step, row, cluster, total and count. Conditions are patches by
    name, `copies` are random tokens that are repeated once, `batch` texts are read at a time, and
    `step` is the number of steps that the training has made.
    """
    tokens = torch.tensor([list(window["tokens"]) for window in windows])
    nats = _nats(bridge, conditions, tokens, batch)
    clusters = [str(window["cluster"]) for window in windows]
    said = torch.tensor([list(text) for text in copies])
    parts = [(scope, nats, counted, clusters) for scope, counted in scopes_of(tokens).items()]
    numbers = [f"copy {number}" for number in range(len(copies))]
    parts.append((SECOND, _nats(bridge, conditions, said, batch), second_copy(said), numbers))
    for scope, values, counted, names in parts:
        for condition, lost in zip(conditions, values, strict=True):
            yield from sum_rows(_named(scope, condition, step), names, *masked_sums(lost, counted))


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


def penalised(options: Mapping[str, Any]) -> list[str]:
    """Which of `PENALISED` the values of `TrainingOptions` penalise."""
    return [name for name, option in PENALISED.items() if options[option]]


def curve_rows(
    held_out: Sequence[Mapping[Any, Any]], options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Rows from the evaluations of a training: with the scope `CURVE` the loss, in nats a token.

    `options` are the values of `TrainingOptions`. What they penalise has rows too.
    """
    told = {CURVE: "loss", **{name: name for name in penalised(options)}}
    return [
        row
        for point in held_out
        for scope, name in told.items()
        for row in sum_rows(
            _named(scope, AS_TRAINED, int(point["step"])), [""], [float(point[name])], [1]
        )
    ]


def at_the_end(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that are not of `curve_rows`."""
    return rows[~rows["scope"].isin([CURVE, *PENALISED])]


def _named(scope: str, condition: str, step: int) -> dict[str, Any]:
    return {"scope": scope, "condition": condition, "step": step}
