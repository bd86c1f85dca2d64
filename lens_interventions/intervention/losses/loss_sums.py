"""Losses of known texts under patches, summed over scopes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...model.precision import as_double
from ..known_text import KnownText
from ..patch import NextTokenPatch
from ..teacher_forcing.log_probs import teacher_forced_log_probs
from .scopes import Scope, chosen_predictions


@dataclass(frozen=True)
class LossSums:
    """Nats of the predictions in a scope.

    Attributes:
        counts: `[text]`, how many predictions there are.
        clean: `[text]`, their sum without a patch, in float64.
        patched: `[patch, text]`, their sum under each patch.
    """

    counts: Int[Tensor, " text"]
    clean: Float[Tensor, " text"]
    patched: Float[Tensor, "patch text"]


def loss_sums(
    bridge: TransformerBridge,
    text: KnownText,
    patches: Sequence[NextTokenPatch],
    scopes: Sequence[Scope],
) -> list[LossSums]:
    """The sums of each scope, from one pass over the texts."""
    log_probs = teacher_forced_log_probs(
        bridge,
        text.tokens,
        [None, *patches],
        attention_mask=text.column_positions() >= 0,
        text_seeds=text.seed,
    )
    losses = -log_probs
    nats = losses[0].nan_to_num()
    padded = torch.cat([nats, torch.zeros_like(nats[:, :1])], dim=1)
    sums = []
    for scope in scopes:
        where = chosen_predictions(scope, text.tokens, padded, text.length)[:, :-1]
        totals = as_double(losses.where(where, 0)).sum(-1)
        sums.append(LossSums(where.sum(-1).to(totals.device), totals[0], totals[1:]))
    return sums
