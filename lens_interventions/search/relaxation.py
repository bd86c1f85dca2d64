"""Ascent on distributions over tokens, in which sampling is one long differentiable function.

Each position holds a distribution, and the model reads its expected embedding. The ascent maximises
the objective plus an entropy whose weight falls to 0. Variants let the model read the likeliest
token of each position (the straight-through estimator, Bengio et al. 2013) or a sampled token
(straight-through Gumbel-softmax, Jang et al. 2017).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .._counter_random import random_normal, random_uniform
from .evaluations import Evaluations
from .objectives import one_hot
from .options import SearchOptions

RelaxedMethod = Literal["exponentiated", "softmax", "straight_through", "gumbel"]

PHASE = "ascent"

# The score of a token that is not allowed: its probability is 0, and its logarithm finite.
_NEVER = -1e4
# Steps between two evaluations of the distributions' likeliest tokens.
_LOOK = 5
_LAST_TEMPERATURE = 0.1


@dataclass(frozen=True)
class Relaxation:
    """A way to climb on distributions.

    Attributes:
        learning_rate: the learning rate of Adam on the scores, or the step of the exponentiated
            gradient.
        exponentiated: multiply the distribution by the exponential of its gradient (Kivinen and
            Warmuth 1997), instead of moving the scores of a softmax with Adam.
        hard: let the model read real tokens, and differentiate as if it read the distribution.
        noisy: sample these tokens instead of taking the likeliest.
    """

    learning_rate: float
    exponentiated: bool = False
    hard: bool = False
    noisy: bool = False


RELAXATIONS: dict[str, Relaxation] = {
    "exponentiated": Relaxation(1.0, exponentiated=True),
    "softmax": Relaxation(0.5),
    "straight_through": Relaxation(0.5, hard=True),
    "gumbel": Relaxation(0.5, hard=True, noisy=True),
}


def ascend(
    evaluations: Evaluations,
    relaxation: Relaxation,
    options: SearchOptions,
    *,
    scores: Float[Tensor, "restart new d_vocab"],
    allowed: Bool[Tensor, " d_vocab"],
    forward_tokens: int,
    seed: int,
) -> None:
    """Climb from `scores` for `forward_tokens`, and keep the best real tokens along the way."""
    n_restarts = len(scores)
    step_cost = n_restarts * evaluations.gradient_cost
    look_cost = 0 if relaxation.hard else n_restarts * evaluations.cost
    # The last step always looks, also after fewer than `_LOOK` steps.
    rounds, rest = divmod(forward_tokens, _LOOK * step_cost + look_cost)
    n_steps = _LOOK * rounds + max(0, rest - look_cost) // step_cost
    scores = scores.clone().requires_grad_()
    rate = options.learning_rate or relaxation.learning_rate
    adam = torch.optim.Adam([scores], lr=rate, maximize=True)
    restarts = torch.arange(n_restarts, device=scores.device)
    for step in range(n_steps):
        left = 1 - step / n_steps
        entropy = options.entropy * left
        with torch.enable_grad():
            drawn = scores
            if relaxation.noisy:
                cooled = options.temperature * max(left, _LAST_TEMPERATURE)
                drawn = (scores + _gumbel(scores, seed, step)) / cooled
            log_weights = drawn.masked_fill(~allowed, _NEVER).log_softmax(-1)
            weights = log_weights.exp()
        tokens = weights.argmax(-1)
        read = (
            one_hot(tokens, weights.shape[-1], weights.dtype)
            if relaxation.hard
            else weights.detach()
        )
        values, gradient = evaluations.differentiate(read)
        if relaxation.hard:
            evaluations.keep(restarts, tokens, values, PHASE)
        with torch.no_grad():
            gradient -= entropy * log_weights
        if relaxation.exponentiated:
            with torch.no_grad():
                scores += rate * gradient
                # Distributions do not depend on where the scores lie, but `_NEVER` does.
                scores -= scores.where(allowed, -torch.inf).amax(-1, keepdim=True)
        else:
            (scores.grad,) = torch.autograd.grad(weights, scores, gradient)
            adam.step()
        if not relaxation.hard and ((step + 1) % _LOOK == 0 or step + 1 == n_steps):
            tokens = scores.where(allowed, -torch.inf).argmax(-1)
            evaluations.keep(restarts, tokens, evaluations.score(tokens), PHASE)


def first_scores(
    start: Int[Tensor, "restart new"] | None,
    shape: tuple[int, int, int],
    options: SearchOptions,
    seed: int,
    device: torch.device,
) -> Float[Tensor, "restart new d_vocab"]:
    """The first scores: noise, with the tokens of `start` far above the others."""
    restarts, positions, d_vocab = shape
    counters = torch.arange(restarts)[:, None], torch.arange(positions)
    scores = options.noise * random_normal(d_vocab, seed, *counters).float().to(device)
    if start is not None:
        scores += options.start_score * one_hot(start, d_vocab, scores.dtype)
    return scores


def _gumbel(
    scores: Float[Tensor, "restart new d_vocab"], seed: int, step: int
) -> Float[Tensor, "restart new d_vocab"]:
    """A draw from Gumbel's distribution for each score."""
    restarts, positions, d_vocab = map(torch.arange, scores.shape)
    drawn = random_uniform(
        seed + 1, torch.tensor(step), restarts[:, None, None], positions[:, None], d_vocab
    )
    # In float32 a uniform number just below 1 would be 1, and its draw infinite.
    return -(-drawn.log()).log().float().to(scores.device)
