"""Log-probabilities and ranks of known tokens, under the arms of a unit or in any readout."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad
from transformer_lens.model_bridge import TransformerBridge

from ...intervention.patch import NextTokenPatch
from ...intervention.teacher_forcing.log_probs import teacher_forced_log_probs
from ...intervention.teacher_forcing.passes import TextPasses
from ...lens.distributions import ranks
from ...model.exclusive import exclusive
from ...model.precision import at_least_float32
from ...model.tokens import token_batch
from .conditions import TEMPERATURE, Arm, PatchSettings


@dataclass(frozen=True)
class Scores:
    """Log-probabilities and ranks of known tokens.

    Attributes:
        log_prob: the log-probability of each token in nats; NaN if there is no token.
        rank: the zero-based rank of each token; -1 if there is no token.
    """

    log_prob: Float[Tensor, "*token"]
    rank: Int[Tensor, "*token"]


def score(logits: Float[Tensor, "*row d_vocab"], targets: Int[Tensor, "*row target"]) -> Scores:
    """Scores of some tokens in each row of logits, `[*row, target]`, in at least float32."""
    logits = logits.to(at_least_float32(logits.dtype))
    log_prob = logits.gather(-1, targets) - logits.logsumexp(-1, keepdim=True)
    return Scores(log_prob, ranks(logits, targets))


def read_log_probs(
    bridge: TransformerBridge,
    tokens: Sequence[Sequence[int]],
    arms: Sequence[Arm],
    patch: PatchSettings,
    seeds: Sequence[int],
    where: Bool[Tensor, "sequence next"] | None = None,
) -> Float[Tensor, "arm sequence next"]:
    """Log-probability of every next token under each arm, in nats, NaN at padding.

    `seeds` keep the random draws of the sequences apart. With `where`, only the next tokens at its
    True entries are read, and the others are NaN.
    """
    rows = [list(row) for row in tokens]
    where = at_end(rows, list(map(len, rows))) if where is None else where
    patched = [arm for arm in arms if arm.source != TEMPERATURE]
    tempered = [arm for arm in arms if arm.source == TEMPERATURE]
    found = {}
    if patched:
        values = teacher_forced_log_probs(
            bridge,
            rows,
            patch.patches(bridge, patched),
            text_seeds=torch.tensor(seeds),
            where=where,
        )
        found = dict(zip(patched, values.cpu().double(), strict=True))
    if tempered:
        read = _read(bridge, rows, [None], seeds, where, [arm.strength for arm in tempered])
        found |= dict(zip(tempered, read.log_prob, strict=True))
    return torch.stack([found[arm] for arm in arms])


def read_ranks(
    bridge: TransformerBridge,
    tokens: Sequence[Sequence[int]],
    arms: Sequence[Arm],
    patch: PatchSettings,
    seeds: Sequence[int],
    where: Bool[Tensor, "sequence next"],
) -> Scores:
    """Scores `[arm, sequence, next]` of the next tokens at the True entries of `where`.

    The scores are float64, on the CPU; entry i is about `x[i + 1]`. `seeds` keep the random draws
    of the sequences apart.
    """
    rows = [list(row) for row in tokens]
    patched = [arm for arm in arms if arm.source != TEMPERATURE]
    tempered = [arm for arm in arms if arm.source == TEMPERATURE]
    read = []
    if patched:
        read.append(_read(bridge, rows, patch.patches(bridge, patched), seeds, where, [1.0]))
    if tempered:
        read.append(_read(bridge, rows, [None], seeds, where, [arm.strength for arm in tempered]))
    order = [[*patched, *tempered].index(arm) for arm in arms]
    return Scores(
        torch.cat([r.log_prob for r in read])[order], torch.cat([r.rank for r in read])[order]
    )


def at_end(tokens: Sequence[Sequence[int]], counts: Sequence[int]) -> Bool[Tensor, "sequence next"]:
    """Where the last few next tokens of each sequence are, `counts` of them at most."""
    place = torch.arange(max(map(len, tokens)) - 1)
    ends = torch.tensor([len(row) - 1 for row in tokens])[:, None]
    return (place < ends) & (place >= ends - torch.tensor(counts)[:, None])


@exclusive
@torch.no_grad()
def _read(
    bridge: TransformerBridge,
    rows: Sequence[list[int]],
    patches: Sequence[NextTokenPatch | None],
    seeds: Sequence[int],
    where: Bool[Tensor, "sequence next"],
    temperatures: Sequence[float],
) -> Scores:
    """Scores `[arm, sequence, next]` of next tokens, few rows of logits at a time.

    The arms are all patches at the first temperature, then at the next. In float64, on the CPU.
    """
    batch = token_batch(bridge, rows)

    def reduce(logits: Tensor, following: Tensor) -> Tensor:
        read = [score(logits / value, following[..., None]) for value in temperatures]
        # A rank is a whole number below 2**24, exact in float32.
        return torch.stack([torch.cat([s.log_prob, s.rank], dim=-1) for s in read], dim=-2)

    passes = TextPasses.plan(bridge, patches, batch, text_seeds=torch.tensor(seeds))
    # The last position of the longest text predicts nothing.
    all_rows = pad(where, (0, 1)).to(batch.tokens.device)
    values = passes.read(reduce, batch.tokens.roll(-1, dims=1), all_rows)[:, :, :-1].cpu().double()
    log_prob, rank = rearrange(
        values, "patch sequence next value score -> score (value patch) sequence next"
    )
    return Scores(log_prob, rank.nan_to_num(nan=-1).long())
