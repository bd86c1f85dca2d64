"""Statistics of next-token distributions, as pure functions of logits.

Every function reduces a trailing `d_vocab` axis. Ranks are zero-based and count strictly larger
logits, so rank 0 is the top guess. Entropies and divergences are in nats.

`scratch` takes a buffer of the shape of the logits, or of as many rows as are reduced at a time.
Code that reduces many chunks passes the same buffer for all of them: on a CPU a large temporary
costs page faults on every call.
"""

import math

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from ..model.precision import at_least_float32

# `top_k` first ranks the maxima of this many strided parts of the vocabulary.
_STRIDES = 64

# Numbers that a CPU multiplies at a time before it adds them up.
_CACHED = 2**20

# Logits this far below the largest add nothing to a sum of shares, not even in float64. The shares
# of others may be denormal, and so may their products, on which Intel's processors are slow.
_NEGLIGIBLE = -80.0


def top_k(
    logits: Float[Tensor, "*row d_vocab"], k: int
) -> tuple[Int[Tensor, "*row k"], Float[Tensor, "*row k"]]:
    """Ids and logits of the `k` largest logits, largest first.

    Exact, in two levels. The vocabulary is viewed as `_STRIDES` strides of columns, the columns'
    maxima are ranked, and only the `k` winning columns are searched: each of the `k` largest logits
    lies in a column whose maximum is among the `k` largest maxima. Any of equal logits may come
    first.

    Raises `ValueError` if `k` is not between 1 and `d_vocab`.
    """
    d_vocab = logits.shape[-1]
    if not 1 <= k <= d_vocab:
        raise ValueError(f"k must be between 1 and the vocabulary size {d_vocab}, got {k}")
    columns = d_vocab // _STRIDES
    if columns < 4 * k:  # too few columns to leave any out
        values, ids = logits.topk(k, dim=-1)
        return ids, values
    strided = rearrange(
        logits[..., : columns * _STRIDES], "... (stride col) -> ... stride col", stride=_STRIDES
    )
    winners = strided.amax(-2).topk(k, dim=-1).indices
    offsets = torch.arange(_STRIDES, device=logits.device) * columns
    candidates = rearrange(winners[..., None] + offsets, "... k stride -> ... (k stride)")
    rest = torch.arange(columns * _STRIDES, d_vocab, device=logits.device)
    candidates = torch.cat([candidates, rest.expand(*candidates.shape[:-1], -1)], dim=-1)
    values, index = logits.gather(-1, candidates).topk(k, dim=-1)
    return candidates.gather(-1, index), values


def ranks(
    logits: Float[Tensor, "*row d_vocab"],
    ids: Int[Tensor, "*row target"],
    scratch: Float[Tensor, "*row d_vocab"] | None = None,
) -> Int[Tensor, "*row target"]:
    """Zero-based rank of each target id: how many logits are strictly larger than its own.

    Equals TransformerLens's `LogitReadout.target_ranks`.
    """
    if scratch is None:
        scratch = torch.empty_like(logits)
    counts = []
    for target in logits.gather(-1, ids).split(1, dim=-1):
        # A comparison written as floats into a kept buffer; `(logits > t).sum(-1)` would make an
        # int64 copy of the whole vocabulary. Sums of ones are exact in float32 up to 2**24.
        torch.gt(logits, target, out=scratch)
        counts.append(scratch.sum(-1, dtype=torch.float32))
    return torch.stack(counts, dim=-1).long()


def normalizer_and_entropy(
    logits: Float[Tensor, "*row d_vocab"],
    likeliest: Int[Tensor, "*row"],
    scratch: Float[Tensor, "*row d_vocab"] | None = None,
) -> tuple[Float[Tensor, "*row"], Float[Tensor, "*row"]]:
    """`log sum exp` of logits and the entropy of their softmax, in nats.

    A token's log-probability is its logit minus the first; a logit of minus infinity has none.
    `likeliest` is the id of each row's largest logit. Afterwards `scratch` holds the softmax.
    """
    # For many rows at once, torch's softmax takes half the time of exponentials and their sum.
    probabilities = torch.softmax(logits, dim=-1, out=scratch)
    # In float32 its sum is not quite 1, and a constant in all logits would count that many times.
    probabilities.div_(probabilities.sum(-1, keepdim=True))
    maximum, most = (each.gather(-1, likeliest[..., None]) for each in (logits, probabilities))
    log_normalizer = (maximum - most.log())[..., 0]
    entropy = log_normalizer - expectation(probabilities, logits)
    return log_normalizer, entropy.clamp(min=0)


def normalizer_entropy_and_ranks(
    logits: Float[Tensor, "row d_vocab"],
    likeliest: Int[Tensor, " row"],
    ids: Int[Tensor, "row target"],
    scratch: Float[Tensor, "scratch_row d_vocab"],
) -> tuple[Float[Tensor, " row"], Float[Tensor, " row"], Int[Tensor, "row target"]]:
    """`normalizer_and_entropy` and `ranks`, of half as many rows at a time as `scratch` has.

    The passes over a few rows stay in a cache. They are all that is done for a few rows at a time,
    since there a call costs about as much as a pass; so the views are made before.
    """
    largest, own = logits.gather(-1, likeliest[:, None]), logits.gather(-1, ids)
    mean_gap, total = (torch.empty_like(largest[:, 0]) for _ in range(2))
    counts = torch.empty_like(own.T)
    few = len(scratch) // 2
    of_rows = (each.split(few) for each in (logits, largest, mean_gap, total))
    of_targets = [(own[:, [t]].split(few), counts[t].split(few)) for t in range(len(counts))]
    for part, (values, largest_there, mean_there, total_there) in enumerate(
        zip(*of_rows, strict=True)
    ):
        room, gaps = scratch[: len(values)], scratch[few : few + len(values)]
        torch.sub(values, largest_there, out=gaps).clamp_(min=_NEGLIGIBLE)
        torch.sum(torch.exp(gaps, out=room), dim=-1, out=total_there)
        torch.sum(torch.mul(room, gaps, out=room), dim=-1, out=mean_there)
        for target, count in of_targets:
            torch.sum(torch.gt(values, target[part], out=room), dim=-1, out=count[part])
    log_total = total.log()
    entropy = log_total - mean_gap / total
    return largest[:, 0] + log_total, entropy.clamp(min=0), counts.T.long()


def expectation(
    weights: Float[Tensor, "*row d_vocab"], values: Float[Tensor, "*row d_vocab"]
) -> Float[Tensor, "*row"]:
    """Sum over the vocabulary of `weights * values`, in which a weight of 0 times infinity is 0.

    So a token that the unembedding excludes by a bias of minus infinity does not count.
    """
    if weights.device.type != "cpu":
        with torch.autocast(weights.device.type, enabled=False):
            sums = torch.linalg.vecdot(weights, values)
    else:
        # Batched products of single rows leave the fast path of a CPU's BLAS. The plain product of
        # a few rows stays in the cache.
        few = max(1, _CACHED // weights.shape[-1])
        parts = (factor.flatten(0, -2).split(few) for factor in (weights, values))
        sums = torch.cat([(w * v).sum(-1) for w, v in zip(*parts, strict=True)])
        sums = sums.view(weights.shape[:-1])
    lost = sums.isnan()
    if lost.any():
        some = weights[lost]
        sums[lost] = torch.where(some == 0, 0.0, some * values[lost]).sum(-1)
    return sums


def log_probs_of(
    logits: Float[Tensor, "*row d_vocab"], ids: Int[Tensor, "*row"]
) -> Float[Tensor, "*row"]:
    """Log-probability of one token a row, in nats and at least float32.

    Half precision loses too much in the sum over the vocabulary.
    """
    wide = logits.to(at_least_float32(logits.dtype))
    return wide.gather(-1, ids[..., None])[..., 0] - wide.logsumexp(-1)


def js_divergence(
    p_logits: Float[Tensor, "*row d_vocab"], q_logits: Float[Tensor, "*row d_vocab"]
) -> Float[Tensor, "*row"]:
    """Jensen-Shannon divergence of the softmaxes of two sets of logits, in nats (at most log 2).

    `(KL(p ‖ m) + KL(q ‖ m)) / 2` with `m = (p + q) / 2` (Lin 1991), which is symmetric.
    """
    log_p, log_q = p_logits.log_softmax(-1), q_logits.log_softmax(-1)
    p, q = log_p.exp(), log_q.exp()
    # The mean of the smallest numbers would round to 0.
    log_mean = torch.logaddexp(log_p, log_q) - math.log(2)
    # Tokens that both exclude would give 0 * (-inf - -inf).
    p_part = torch.where(p == 0, 0.0, p * (log_p - log_mean))
    q_part = torch.where(q == 0, 0.0, q * (log_q - log_mean))
    return ((p_part + q_part).sum(-1) / 2).clamp(min=0)
