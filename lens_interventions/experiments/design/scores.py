"""What the arms of a unit say about its sequences, position by position."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...intervention.teacher_forcing.log_probs import (
    teacher_forced_log_probs,
    teacher_forced_logits,
)
from .conditions import Arm, PatchSettings

# Logits that are held at a time while ranks are counted.
_LOGITS = 2**26


@dataclass(frozen=True)
class Readings:
    """Predictions of known tokens; entry i is about `x[i + 1]`.

    Attributes:
        log_prob: `[arm, sequence, next]` in nats, float64, NaN at padding.
        rank: `[arm, sequence, next]`, zero-based, -1 at padding.
    """

    log_prob: Float[Tensor, "arm sequence next"]
    rank: Int[Tensor, "arm sequence next"]


def read_log_probs(
    bridge: TransformerBridge,
    tokens: Sequence[Sequence[int]],
    arms: Sequence[Arm],
    patch: PatchSettings,
    seeds: Sequence[int],
) -> Float[Tensor, "arm sequence next"]:
    """Log-probability of every next token under each arm, nats, NaN at padding.

    `seeds` tell the random draws of one sequence from those of another.
    """
    length = max(map(len, tokens))
    values = teacher_forced_log_probs(
        bridge,
        [list(row) for row in tokens],
        [patch.patch(arm, length) for arm in arms],
        text_seeds=torch.tensor(seeds),
    )
    return values.double().cpu()


def read_ranks(
    bridge: TransformerBridge,
    tokens: Sequence[Sequence[int]],
    arms: Sequence[Arm],
    patch: PatchSettings,
    seeds: Sequence[int],
) -> Readings:
    """Log-probability and rank of every next token under each arm, a few arms at a time."""
    length = max(map(len, tokens))
    rows = [list(row) for row in tokens]
    following = torch.stack(
        [torch.tensor([*row[1:], *[-1] * (length - len(row))]) for row in rows]
    ).to(bridge.cfg.device)
    per_arm = len(rows) * length * int(bridge.cfg.d_vocab)
    # Arms of one layer share the blocks below: they are kept together, in their order.
    parts = [
        group[start : start + max(1, _LOGITS // per_arm)]
        for _, same_layer in itertools.groupby(arms, key=lambda arm: arm.layer)
        for group in [list(same_layer)]
        for start in range(0, len(group), max(1, _LOGITS // per_arm))
    ]
    read = [
        _score(
            teacher_forced_logits(
                bridge,
                rows,
                [patch.patch(arm, length) for arm in part],
                text_seeds=torch.tensor(seeds),
            )[:, :, :-1],
            following,
        )
        for part in parts
    ]
    return Readings(torch.cat([r.log_prob for r in read]), torch.cat([r.rank for r in read]))


def _score(
    logits: Float[Tensor, "arm sequence next d_vocab"], following: Int[Tensor, "sequence next"]
) -> Readings:
    targets = following.clamp(min=0).expand(len(logits), -1, -1)[..., None]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    chosen = logits.gather(-1, targets)
    missing = following < 0
    log_prob = (chosen[..., 0] - logits.logsumexp(-1)).double().masked_fill(missing, torch.nan)
    rank = (logits > chosen).sum(-1).masked_fill(missing, -1)
    return Readings(log_prob.cpu(), rank.cpu())
