"""The scopes of held-out text, and the conditions under which it is read."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ...measures.behaviour import copyable

ALL, COPYABLE, OTHER, SECOND = "all", "copyable", "other", "second copies"
"""Scopes: every token of a text, those that complete a pair from earlier in it, the others, and
the second copies of random tokens."""

AS_TRAINED, TAKEN_AWAY = "as trained", "taken away"
"""Conditions: what is written is the same as in training, or it is nothing."""


def scopes_of(tokens: Int[Tensor, "text pos"]) -> dict[str, Bool[Tensor, "text next"]]:
    """Masks of the predictions in `ALL`, `COPYABLE` and `OTHER`."""
    pairs = copyable(tokens)[:, :-1]
    return {ALL: torch.ones_like(pairs), COPYABLE: pairs, OTHER: ~pairs}


def second_copy(tokens: Int[Tensor, "text pos"]) -> Bool[Tensor, "text next"]:
    """The predictions in `SECOND` of texts that end in two copies of equal length.

    The first token of the second copy cannot be predicted, so it does not count.
    """
    n_next = tokens.shape[1] - 1
    return (torch.arange(n_next) > n_next - tokens.shape[1] // 2).expand(len(tokens), -1)
