"""The predictions over which a loss or its slope is summed.

A scope is a function of one text: its tokens `[pos]` and the nats that each next token costs
without a patch, `[pos - 1]`. It returns `[pos - 1]`, True at the predictions that count; entry i is
about `x[i+1]`.
"""

from collections.abc import Callable, Sequence
from itertools import product

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...measures.behaviour.copying import copyable as pair_before
from ...measures.behaviour.repeats import surprise_distance
from ..names import function_names, name_of

Tokens = Int[Tensor, " pos"]
Nats = Float[Tensor, " next"]
Chosen = Bool[Tensor, " next"]
Scope = Callable[[Tensor, Tensor], Tensor]

SURPRISING = 6.0
"""Nats from which a token counts as surprising, also in experiments."""


def all_predictions(_tokens: Tokens, nats: Nats) -> Chosen:
    """Every prediction."""
    return torch.ones_like(nats, dtype=torch.bool)


def copyable(tokens: Tokens, _nats: Nats) -> Chosen:
    """The next token completes a pair that stood earlier in the text."""
    return pair_before(tokens[None])[0, :-1]


def other(tokens: Tokens, nats: Nats) -> Chosen:
    """The next token does not complete such a pair."""
    return ~copyable(tokens, nats)


def after_surprise(_tokens: Tokens, nats: Nats) -> Chosen:
    """The token before the predicted one was surprising."""
    return torch.cat([nats.new_zeros(1, dtype=torch.bool), nats[:-1] >= SURPRISING])


def repeated_surprise(tokens: Tokens, nats: Nats) -> Chosen:
    """The next token stood earlier in the text, and was surprising where it first stood."""
    return surprise_distance(tokens[None], nats[None], SURPRISING)[0] > 0


SCOPES: dict[str, Scope] = {
    "all": all_predictions,
    "copyable": copyable,
    "other": other,
    "after_surprise": after_surprise,
    "repeated_surprise": repeated_surprise,
}


def scopes_by_name(scopes: Sequence[str | Scope]) -> dict[str, Scope]:
    """Scopes given by name or as functions, by their names.

    Raises `ValueError` for an unknown name, a name given twice, an empty list, or a string.
    """
    names = function_names("scopes", scopes, list(SCOPES))
    functions = (SCOPES[scope] if isinstance(scope, str) else scope for scope in scopes)
    return dict(zip(names, functions, strict=True))


def chosen_predictions(
    scopes: Sequence[Scope],
    tokens: Int[Tensor, "batch pos"],
    nats: Float[Tensor, "batch pos"],
    lengths: Int[Tensor, " batch"],
) -> Bool[Tensor, "scope batch pos"]:
    """Scopes of each text of a batch that is padded on the right, False where nothing follows.

    Raises `ValueError` for a scope that returns another shape or type.
    """
    chosen = nats.new_zeros(len(scopes), *nats.shape, dtype=torch.bool)
    for (place, scope), (row, length) in product(enumerate(scopes), enumerate(lengths.tolist())):
        # Copies, as a user's function may write to what it gets.
        said = scope(tokens[row, :length].clone(), nats[row, : length - 1].clone())
        if not isinstance(said, Tensor):
            raise ValueError(
                f"the scope {name_of(scope)!r} returned {type(said).__name__}; expected a tensor "
                "of bools"
            )
        if said.shape != (length - 1,) or said.dtype != torch.bool:
            raise ValueError(
                f"the scope {name_of(scope)!r} returned {said.dtype} of shape "
                f"{tuple(said.shape)}; expected one bool for each prediction, ({length - 1},)"
            )
        chosen[place, row, : length - 1] = said
    return chosen
