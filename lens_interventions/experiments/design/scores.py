"""Log-probabilities and ranks of known tokens, under the arms of a unit or in any readout."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformer_lens.model_bridge import TransformerBridge

from ...intervention.teacher_forcing.log_probs import (
    teacher_forced_log_probs,
    teacher_forced_logits,
)
from ...lens.distributions import ranks
from .conditions import TEMPERATURE, Arm, PatchSettings

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
    rows = [list(row) for row in tokens]
    patched = [arm for arm in arms if arm.source != TEMPERATURE]
    tempered = [arm for arm in arms if arm.source == TEMPERATURE]
    found = {}
    if patched:
        values = teacher_forced_log_probs(
            bridge,
            rows,
            patch.patches(bridge, patched, length),
            text_seeds=torch.tensor(seeds),
        )
        found = dict(zip(patched, values.double().cpu(), strict=True))
    if tempered:
        found |= dict(zip(tempered, _read_tempered(bridge, rows, tempered).log_prob, strict=True))
    return torch.stack([found[arm] for arm in arms])


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
    following = _following(bridge, rows)
    per_arm = len(rows) * length * int(bridge.cfg.d_vocab)
    patched = [arm for arm in arms if arm.source != TEMPERATURE]
    tempered = [arm for arm in arms if arm.source == TEMPERATURE]
    # Arms of one layer share the blocks below: they are kept together, in their order.
    parts = [
        group[start : start + max(1, _LOGITS // per_arm)]
        for _, same_layer in itertools.groupby(patched, key=lambda arm: arm.layer)
        for group in [list(same_layer)]
        for start in range(0, len(group), max(1, _LOGITS // per_arm))
    ]
    read = [
        _score_next(
            teacher_forced_logits(
                bridge,
                rows,
                patch.patches(bridge, part, length),
                text_seeds=torch.tensor(seeds),
            )[:, :, :-1],
            following,
        )
        for part in parts
    ]
    if tempered:
        read.append(_read_tempered(bridge, rows, tempered))
    order = [[*patched, *tempered].index(arm) for arm in arms]
    return Scores(
        torch.cat([r.log_prob for r in read])[order], torch.cat([r.rank for r in read])[order]
    )


def _read_tempered(
    bridge: TransformerBridge, rows: Sequence[list[int]], arms: Sequence[Arm]
) -> Scores:
    """Scores `[arm, sequence, next]` of the unpatched model at the temperature of each arm."""
    following = _following(bridge, rows)
    found = []
    for row, expected in zip(rows, following, strict=True):
        # One text at a time: the logits are held once for every temperature.
        logits = teacher_forced_logits(bridge, [row], None)[:, :-1]
        expected = expected[: len(row) - 1]
        of_row = [_score_next(logits[None] / arm.strength, expected[None]) for arm in arms]
        found.append(
            Scores(
                torch.cat([s.log_prob[:, 0] for s in of_row]),
                torch.cat([s.rank[:, 0] for s in of_row]),
            )
        )
    return Scores(
        pad_sequence([s.log_prob.T for s in found], padding_value=torch.nan).permute(2, 1, 0),
        pad_sequence([s.rank.T for s in found], padding_value=-1).permute(2, 1, 0),
    )


def _following(
    bridge: TransformerBridge, rows: Sequence[list[int]]
) -> Int[Tensor, "sequence next"]:
    """The next token of every position, -1 after the last."""
    length = max(map(len, rows))
    padded = [torch.tensor([*row[1:], *[-1] * (length - len(row))]) for row in rows]
    return torch.stack(padded).to(bridge.cfg.device)


def _score_next(
    logits: Float[Tensor, "arm sequence next d_vocab"], following: Int[Tensor, "sequence next"]
) -> Scores:
    missing = following < 0
    scores = score(logits, following.clamp(min=0).expand(len(logits), -1, -1)[..., None])
    log_prob = scores.log_prob[..., 0].double().masked_fill(missing, torch.nan)
    return Scores(log_prob.cpu(), scores.rank[..., 0].masked_fill(missing, -1).cpu())
