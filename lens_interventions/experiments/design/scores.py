"""Log-probabilities and ranks of known tokens, under the arms of a unit or in any readout."""

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
from ...lens.distributions import ranks
from .conditions import Arm, PatchSettings

# Logits that are held at a time while ranks are counted.
_LOGITS = 2**26


@dataclass(frozen=True)
class Scores:
    """Log-probabilities and ranks of known tokens.

    Attributes:
        log_prob: of each token in nats, NaN where there is none.
        rank: of each token, zero-based, -1 where there is none.
    """

    log_prob: Float[Tensor, "*token"]
    rank: Int[Tensor, "*token"]


def score(logits: Float[Tensor, "*row d_vocab"], targets: Int[Tensor, "*row target"]) -> Scores:
    """Scores of some tokens in each row of logits, `[*row, target]`, in at least float32."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    log_prob = logits.gather(-1, targets) - logits.logsumexp(-1, keepdim=True)
    return Scores(log_prob, ranks(logits, targets))


def read_log_probs(
    bridge: TransformerBridge,
    tokens: Sequence[Sequence[int]],
    arms: Sequence[Arm],
    patch: PatchSettings,
    seeds: Sequence[int],
) -> Float[Tensor, "arm sequence next"]:
    """Log-probability of every next token under each arm, in nats, NaN at padding.

    `seeds` keep the random draws of the sequences apart.
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
) -> Scores:
    """Scores `[arm, sequence, next]` of every next token, a few arms at a time.

    Float64, on the CPU; entry i is about `x[i + 1]`. `seeds` keep the random draws of the sequences
    apart.
    """
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
        _score_next(
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
    return Scores(torch.cat([r.log_prob for r in read]), torch.cat([r.rank for r in read]))


def _score_next(
    logits: Float[Tensor, "arm sequence next d_vocab"], following: Int[Tensor, "sequence next"]
) -> Scores:
    missing = following < 0
    scores = score(logits, following.clamp(min=0).expand(len(logits), -1, -1)[..., None])
    log_prob = scores.log_prob[..., 0].double().masked_fill(missing, torch.nan)
    return Scores(log_prob.cpu(), scores.rank[..., 0].masked_fill(missing, -1).cpu())
