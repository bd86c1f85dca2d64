"""Kinds of positions in a text that repeats itself, and the attention that each kind gets."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...measures.behaviour import pair_distance

KINDS = ("first", "itself", "earlier occurrence", "after one", "before one", "other")
"""Kinds of positions that the last one of a text may attend to, see `position_kinds`."""


def position_kinds(tokens: Int[Tensor, " pos"]) -> list[str]:
    """How each position is related to the last one, t; the first kind that applies.

    - "first": position 0
    - "itself": position t
    - "earlier occurrence": holds `x[t]`. A patch of the true token wrote the token that followed
        it.
    - "after one": follows an earlier occurrence. An induction head attends there.
    - "before one": precedes one. A patch of the true token wrote `x[t]` there.
    - "other"
    """
    ids = tokens.tolist()
    last = len(ids) - 1
    earlier = {i for i in range(last) if ids[i] == ids[last]}

    def kind(i: int) -> str:
        if i == 0:
            return "first"
        if i == last:
            return "itself"
        if i in earlier:
            return "earlier occurrence"
        if i - 1 in earlier:
            return "after one"
        return "before one" if i + 1 in earlier else "other"

    return [kind(i) for i in range(len(ids))]


def attention_by_kind(
    pattern: Float[Tensor, "head pos"], kinds: list[str]
) -> Float[Tensor, "head kind"]:
    """Each head's attention from the last position, summed over the positions of each kind."""
    which = torch.tensor([KINDS.index(kind) for kind in kinds], device=pattern.device)
    return pattern.new_zeros(len(pattern), len(KINDS)).index_add(1, which, pattern)


def matched_positions(tokens: Int[Tensor, " pos"]) -> list[int]:
    """Positions k whose pair `(x[k], x[k + 1])` occurs again: a patch wrote the token then due.

    If a pair has several earlier occurrences, the last one counts.
    """
    back = pair_distance(tokens[None])[0]
    here = torch.arange(len(tokens), device=tokens.device)
    return sorted(set((here - back)[back > 0].tolist()))
