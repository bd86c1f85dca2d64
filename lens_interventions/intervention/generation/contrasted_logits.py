"""New logits from those of the last layer and of earlier ones: the rules of DoLa and SLED."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ...lens.distributions import js_divergence


def dola(
    last: Float[Tensor, "row d_vocab"],
    early: Float[Tensor, "layer row d_vocab"],
    *,
    alpha: float,
) -> Float[Tensor, "row d_vocab"]:
    """`log p_last - log p_early` of the tokens with `p_last >= alpha * max p_last`, else -inf.

    In each row the early layer is the one with the largest Jensen-Shannon divergence from the last.
    Source: Chuang et al. (2023), "DoLa", https://arxiv.org/abs/2309.03883.
    """
    log_last = last.log_softmax(-1)
    chosen = torch.stack([js_divergence(last, logits) for logits in early]).argmax(0)
    row = torch.arange(len(last), device=chosen.device)
    log_early = early[chosen, row].log_softmax(-1)
    plausible = log_last >= log_last.amax(-1, keepdim=True) + math.log(alpha)
    return torch.where(plausible, log_last - log_early, -torch.inf)


def sled(
    last: Float[Tensor, "row d_vocab"],
    early: Float[Tensor, "layer row d_vocab"],
    *,
    rate: float,
    scale: int,
) -> Float[Tensor, "row d_vocab"]:
    """`last - rate * (p_last - p_latent)` of the `scale` likeliest tokens, -inf elsewhere.

    With `d_n = early[n] - last` and `e_i` the distribution that is certain of token i, each early
    layer estimates the distribution towards which the logits evolve:

        p_latent[i]  ~  sum over n of max(cos(d_n, p_n - e_i), 0)^2

    among these tokens, and 0 where no cosine is positive. One step at temperature 1.

    Source: Zhang et al. (2024), "SLED", https://arxiv.org/abs/2411.02433.
    """
    top, ids = last.topk(min(scale, last.shape[-1]), dim=-1)
    weights = torch.zeros_like(top)
    for logits in early:
        weights += _cosines(logits, last, ids).clamp(min=0) ** 2
    total = weights.sum(-1, keepdim=True)
    latent = torch.where(total > 0, weights / total, 0.0)
    probabilities = last.softmax(-1).gather(-1, ids)
    evolved = top - rate * (probabilities - latent)
    return torch.full_like(last, -torch.inf).scatter(-1, ids, evolved)


def _cosines(
    early: Float[Tensor, "row d_vocab"],
    last: Float[Tensor, "row d_vocab"],
    ids: Tensor,
) -> Float[Tensor, "row token"]:
    """`cos(early - last, p_early - e_i)` for each i of `ids`, `[row, token]`."""
    # A token that the unembedding excludes by a bias of minus infinity has no part.
    moved = torch.where(last.isneginf(), 0.0, early - last)
    p = early.softmax(-1)
    # The tokens of `ids` are summed apart from the others: if the layer is nearly certain of i,
    # correcting a sum over all tokens for `e_i` would leave little but rounding.
    p_top, moved_top = p.gather(-1, ids), moved.gather(-1, ids)
    p_rest = p.scatter(-1, ids, 0.0)
    towards = p_top[:, None, :] - torch.eye(ids.shape[-1], dtype=p.dtype, device=p.device)
    product = (p_rest * moved).sum(-1, keepdim=True) + (towards * moved_top[:, None, :]).sum(-1)
    length = (p_rest.square().sum(-1, keepdim=True) + towards.square().sum(-1)).sqrt()
    length = length * moved.norm(dim=-1, keepdim=True)
    return torch.where(length > 0, product / length, 0.0)
