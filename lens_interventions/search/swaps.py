"""Ascent on real tokens: swap one at a time, the most promising first, and verify it exactly.

Greedy coordinate search guided by gradients, as in HotFlip (Ebrahimi et al. 2018) and GCG (Zou et
al. 2023). GCG draws its candidates at random among the best of each position. Here they are tried
in the order of their first-order gain over all positions, so nothing is drawn and nothing is tried
twice. For likelihoods, this gain is exact in the cost of the swapped token itself, and first order
in its effect on later tokens.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .._counter_random import random_integers
from .evaluations import Evaluations
from .objectives import one_hot

PHASE = "swaps"

# How many swaps of a sequence are tried before it counts as a local optimum.
_MOST_TRIED = 4096


def swap_tokens(
    evaluations: Evaluations, allowed: Bool[Tensor, " d_vocab"], candidates: int, seed: int
) -> None:
    """Improve the best tokens of each restart until the budget is used.

    For each restart, `candidates` swaps are verified together, and the best of them is taken if it
    is an improvement. A restart that no swap improves starts again from random tokens, drawn with
    `seed`.
    """
    tokens, values = evaluations.best_tokens.clone(), evaluations.best_values.clone()
    n_restarts, n_tokens = tokens.shape
    n_swaps = min(_MOST_TRIED, n_tokens * (int(allowed.sum()) - 1))
    restart = torch.arange(n_restarts, device=tokens.device)
    ranked = tokens.new_zeros(n_restarts, n_swaps)
    tried = torch.zeros_like(restart)
    stale = torch.ones_like(restart, dtype=torch.bool)
    renewed = 0
    while True:
        stuck = tried >= n_swaps
        first_costs = int(stuck.sum()) * evaluations.cost
        gradients_cost = int((stale | stuck).sum()) * evaluations.gradient_cost
        width = (evaluations.left - first_costs - gradients_cost) // (n_restarts * evaluations.cost)
        if width < 1:
            return
        if stuck.any():
            renewed += 1
            tokens[stuck] = _random_tokens(restart[stuck], n_tokens, allowed, seed, renewed)
            values[stuck] = evaluations.score(tokens[stuck]).to(values.dtype)
            evaluations.keep(restart[stuck], tokens[stuck], values[stuck], PHASE)
            stale |= stuck
        if stale.any():
            ranked[stale] = _ranked(evaluations, tokens[stale], allowed, n_swaps)
            tried[stale] = 0
        places = tried[:, None] + torch.arange(min(width, candidates), device=tokens.device)
        there = places < n_swaps
        swaps = ranked.gather(1, places.clamp(max=n_swaps - 1))
        swapped = tokens[:, None].repeat(1, swaps.shape[1], 1)
        position, token = swaps // len(allowed), swaps % len(allowed)
        swapped.scatter_(2, position[..., None], token[..., None])
        found = values.new_full(swaps.shape, -torch.inf)
        found[there] = evaluations.score(swapped[there]).to(found.dtype)
        best = found.argmax(1)
        evaluations.keep(restart, swapped[restart, best], found[restart, best], PHASE)
        stale = found[restart, best] > values
        tokens[stale] = swapped[restart, best][stale]
        values[stale] = found[restart, best][stale]
        tried += swaps.shape[1]
        tried[stale] = 0


def _random_tokens(
    restarts: Int[Tensor, " chosen"],
    n_tokens: int,
    allowed: Bool[Tensor, " d_vocab"],
    seed: int,
    renewed: int,
) -> Int[Tensor, "chosen {n_tokens}"]:
    ids = allowed.nonzero()[:, 0]
    position = torch.arange(n_tokens, device=ids.device)
    drawn = random_integers(
        len(ids), seed, restarts[:, None], position, torch.tensor(renewed, device=ids.device)
    )
    return ids[drawn]


def _ranked(
    evaluations: Evaluations,
    tokens: Int[Tensor, "chosen new"],
    allowed: Bool[Tensor, " d_vocab"],
    n: int,
) -> Int[Tensor, "chosen swap"]:
    """The swaps of some sequences, `position * d_vocab + token`, by their first-order gain."""
    weights = one_hot(tokens, len(allowed), torch.float32)
    _, gradient = evaluations.differentiate(weights)
    here = tokens[..., None]
    gain: Float[Tensor, "chosen new d_vocab"] = gradient - gradient.gather(-1, here)
    gain = gain.masked_fill(~allowed, -torch.inf).scatter(-1, here, -torch.inf)
    return gain.flatten(1).topk(n, dim=-1).indices
