"""Ascent on real tokens: swap one at a time, the most promising first, and verify it exactly.

Greedy coordinate search guided by gradients, as in HotFlip (Ebrahimi et al. 2018) and GCG (Zou et
al. 2023). GCG draws its candidates at random among the best of each position. Here they are tried
in the order of their first-order gain over all positions, so nothing is drawn and nothing is tried
twice. Of likelihoods that gain is exact in what the swapped token itself costs, and first order in
what it does to later ones.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .evaluations import Evaluations
from .objectives import one_hot

PHASE = "swaps"

# How many swaps of one sequence are tried before it counts as a local optimum.
_MOST_TRIED = 4096


def swap_tokens(
    evaluations: Evaluations, allowed: Bool[Tensor, " d_vocab"], candidates: int
) -> None:
    """Improve the best tokens of each restart, until the budget is used or no swap helps.

    For each restart so many `candidates` are verified together, and the best of them is taken if
    it is better.
    """
    n_restarts, n_tokens = evaluations.best_tokens.shape
    d_vocab = len(allowed)
    device = evaluations.best_tokens.device
    ranked = torch.zeros(
        n_restarts, min(_MOST_TRIED, n_tokens * (int(allowed.sum()) - 1)), dtype=torch.long
    ).to(device)
    tried = torch.zeros(n_restarts, dtype=torch.long, device=device)
    stale = torch.ones(n_restarts, dtype=torch.bool, device=device)
    while True:
        active = ((tried < ranked.shape[1]) | stale).nonzero()[:, 0]
        needed = int(stale.sum()) * evaluations.gradient_cost
        width = (evaluations.left - needed) // max(1, evaluations.cost * len(active))
        if len(active) == 0 or width < 1:
            return
        if stale.any():
            ranked[stale] = _ranked(evaluations, stale, allowed, ranked.shape[1])
            tried[stale], stale[:] = 0, False
        places = tried[active, None] + torch.arange(min(width, candidates), device=device)
        there = places < ranked.shape[1]
        swaps = ranked[active].gather(1, places.clamp(max=ranked.shape[1] - 1))
        tokens = evaluations.best_tokens[active, None].repeat(1, swaps.shape[1], 1)
        tokens.scatter_(2, (swaps // d_vocab)[..., None], (swaps % d_vocab)[..., None])
        values = swaps.new_full(swaps.shape, -torch.inf, dtype=evaluations.best_values.dtype)
        values[there] = evaluations.score(tokens[there]).to(values.dtype)
        best = values.argmax(1)
        row = torch.arange(len(active), device=device)
        better = evaluations.keep(active, tokens[row, best], values[row, best], PHASE)
        tried[active] += swaps.shape[1]
        stale[active[better]] = True


def _ranked(
    evaluations: Evaluations,
    which: Bool[Tensor, " restart"],
    allowed: Bool[Tensor, " d_vocab"],
    n: int,
) -> Int[Tensor, "restart swap"]:
    """The swaps of some restarts, `position * d_vocab + token`, by their first-order gain."""
    tokens = evaluations.best_tokens[which]
    weights = one_hot(tokens, len(allowed), torch.float32)
    _, gradient = evaluations.differentiate(weights)
    here = tokens[..., None]
    gain: Float[Tensor, "restart new d_vocab"] = gradient - gradient.gather(-1, here)
    gain = gain.masked_fill(~allowed, -torch.inf).scatter(-1, here, -torch.inf)
    return gain.flatten(1).topk(n, dim=-1).indices
