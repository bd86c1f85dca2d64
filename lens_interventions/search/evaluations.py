"""The count of model evaluations in a search, and the best real tokens so far."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from .continuations import Continuations
from .objectives import Maximised, one_hot

BACKWARD = 2
"""Forward passes that a backward pass counts as: it takes two products for each of theirs."""

# How many rows of logits are held at a time.
_ROWS = 512


@dataclass
class Evaluations:
    """Runs the model for a search, within a budget of forward tokens.

    A token that goes through the model counts 1, and `BACKWARD` more if the objective is
    differentiated.

    Attributes:
        model: the continuations.
        objective: the function to maximise.
        budget: the number of forward tokens that the search may use.
        best_tokens: `[restart, new]`, the best real tokens of each restart.
        best_values: `[restart]`, their objective; minus infinity before the first evaluation.
        bar: a progress bar for the used share of the budget.
        used: forward tokens so far.
        history: a row for each scoring of real tokens.
    """

    model: Continuations
    objective: Maximised
    budget: int
    best_tokens: Int[Tensor, "restart new"]
    best_values: Float[Tensor, " restart"]
    bar: tqdm
    used: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def cost(self) -> int:
        """Forward tokens of one sequence."""
        return self.model.forward_tokens(self.objective.rows)

    @property
    def gradient_cost(self) -> int:
        """Forward tokens of one sequence and its gradient."""
        return (1 + BACKWARD) * self.cost

    @property
    def left(self) -> int:
        """Forward tokens that are left."""
        return self.budget - self.used

    @torch.no_grad()
    def score(self, tokens: Int[Tensor, "candidate new"]) -> Float[Tensor, " candidate"]:
        """The objective of real tokens."""
        self._use(len(tokens) * self.cost)
        found = []
        for part in tokens.split(max(1, _ROWS // self.cost)):
            logits = self.model.of_tokens(part, self.objective.rows)
            found.append(self.objective.of_tokens(logits, self.model.with_ending(part)))
        return _numbers(torch.cat(found))

    def differentiate(
        self, weights: Float[Tensor, "restart new d_vocab"]
    ) -> tuple[Float[Tensor, " restart"], Float[Tensor, "restart new d_vocab"]]:
        """The objective of distributions, and its gradient with respect to them.

        Raises `ValueError` if the objective does not depend on them differentiably.
        """
        self._use(len(weights) * self.gradient_cost)
        values, gradients = [], []
        ending = one_hot(self.model.ending, self.model.d_vocab, weights.dtype)
        for part in weights.split(max(1, _ROWS // self.cost)):
            leaf = part.detach().requires_grad_()
            with torch.enable_grad():
                logits = self.model.of_weights(leaf, self.objective.rows)
                text = torch.cat([leaf, ending.expand(len(leaf), -1, -1)], dim=1)
                value = self.objective.of_weights(logits, text)
                gradient = None
                if value.requires_grad:
                    (gradient,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
            if gradient is None:
                raise ValueError(
                    "the objective has no gradient: a search climbs on it, so it must be "
                    "differentiable in the logits or the tokens that it gets. Leave out argmax, "
                    "comparisons, detach and .item()"
                )
            values.append(value.detach())
            gradients.append(gradient)
        return _numbers(torch.cat(values)), torch.cat(gradients)

    def keep(
        self,
        restarts: Int[Tensor, " candidate"],
        tokens: Int[Tensor, "candidate new"],
        values: Float[Tensor, " candidate"],
        phase: str,
    ) -> Bool[Tensor, " candidate"]:
        """Keep candidates that are better than the best of their restart; return which they are.

        Each restart has at most one candidate.
        """
        better = values > self.best_values[restarts]
        self.best_values[restarts[better]] = values[better].to(self.best_values.dtype)
        self.best_tokens[restarts[better]] = tokens[better]
        self.history += [
            {
                "evaluations": self.used,
                "phase": phase,
                "restart": int(restart),
                "value": float(value),
                "best": float(self.best_values.max()),
            }
            for restart, value in zip(restarts, values, strict=True)
        ]
        return better

    def _use(self, forward_tokens: int) -> None:
        self.used += forward_tokens
        self.bar.update(forward_tokens)


def _numbers(values: Float[Tensor, " candidate"]) -> Float[Tensor, " candidate"]:
    if values.isnan().any():
        raise ValueError(
            "the objective is not a number: look for a hook or weight with such values, or a "
            "half-precision overflow"
        )
    return values
