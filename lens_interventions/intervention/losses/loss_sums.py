"""Losses of known texts under patches, summed over scopes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...lens.distributions import log_probs_of
from ...model.precision import as_double
from ..known_text import KnownText
from ..patch import NextTokenPatch, bind_all
from ..teacher_forcing.passes import TextPasses
from ..teacher_forcing.row_hooks import GivenHook, hooks_by_row
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


@torch.no_grad()
def loss_sums(
    bridge: TransformerBridge,
    text: KnownText,
    patches: Sequence[NextTokenPatch],
    scopes: Sequence[Scope],
    fwd_hooks: Sequence[GivenHook] = (),
) -> list[LossSums]:
    """The sums of each scope, from one pass over the texts, which have no padding on the left.

    `fwd_hooks` are as in `teacher_forced_log_probs`.

    Raises `ValueError` if a loss that a scope counts is not finite, or a scope returns something
    else than it should.
    """
    bounds = tuple(bind_all(bridge, [None, *patches]))
    tokens = text.tokens
    hooks = tuple(hooks_by_row(bridge, fwd_hooks, tokens.shape[1], patches))
    passes = TextPasses(bridge, bounds, (text,), skip=(0,), fwd_hooks=hooks)
    predicts = text.predicts
    read = passes.read(log_probs_of, tokens.roll(-1, dims=1), predicts)
    losses = -read.where(predicts.to(read.device), 0)
    chosen = chosen_predictions(scopes, tokens, losses[0], text.length)
    require_finite(losses.where(chosen.any(0), 0))
    sums = []
    for where in chosen:
        totals = as_double(losses.where(where, 0)).sum(-1)
        sums.append(LossSums(where.sum(-1).to(totals.device), totals[0], totals[1:]))
    return sums


def require_finite(losses: Float[Tensor, "*row pos"]) -> None:
    """Raise `ValueError` if a loss is infinite or not a number."""
    if losses.isnan().any():
        raise ValueError(
            "a loss is not a number on one of the texts: look for a hook, weight or patch with "
            "such values, or a half-precision overflow"
        )
    if losses.isinf().any():
        raise ValueError(
            "a loss is infinite on one of the texts, as a token in it has no probability: leave "
            "out texts with tokens that the model, or the model under a patch, cannot say"
        )
