"""Tokens that could have been copied from earlier in the same text.

Results are at the position that makes the prediction: like the loss, entry i is about the token
`x[i + 1]`, and the last position has no result.
"""

import torch
from jaxtyping import Bool, Int, Integer
from torch import Tensor

Mask = Bool[Tensor, "batch pos"] | Integer[Tensor, "batch pos"]
"""True, or not 0, at real tokens."""


def copyable(
    tokens: Integer[Tensor, "batch pos"], *, mask: Mask | None = None
) -> Bool[Tensor, "batch pos"]:
    """Whether the next token completes a pair that occurred earlier in the text.

    True at i if some k < i has `x[k] == x[i]` and `x[k + 1] == x[i + 1]`: a reader who looks back
    for the current token can find the next one after it. The earlier pair may share the token
    `x[i]` ("a a a": the third is copyable). False at the last position.

    `tokens` are `[batch, pos]` ids. `mask` is True at real tokens, contiguous in each row, by
    default at ids of 0 or more; a pair that contains padding does not count.

    Raises `ValueError` unless tokens and mask are `[batch, pos]`.
    """
    return pair_distance(tokens, mask=mask) > 0


def pair_distance(
    tokens: Integer[Tensor, "batch pos"], *, mask: Mask | None = None
) -> Int[Tensor, "batch pos"]:
    """How many tokens back the pair `(x[i], x[i + 1])` last occurred; 0 if it never did.

    `i - k` for the largest k < i with `x[k] == x[i]` and `x[k + 1] == x[i + 1]`; 0 at the last
    position. `tokens` are `[batch, pos]` ids. `mask` is True at real tokens, contiguous in each
    row, by default at ids of 0 or more; a pair that contains padding does not count.

    Raises `ValueError` unless tokens and mask are `[batch, pos]`.
    """
    tokens = tokens.long()  # positions may not fit into the ids' own type
    real = _real(tokens, mask)
    # One number per pair, through dense ids so that the product cannot overflow.
    ids, dense = torch.unique(tokens, return_inverse=True)
    pairs = dense[:, :-1] * len(ids) + dense[:, 1:]
    earlier = _previous_equal(pairs, real[:, :-1] & real[:, 1:])
    here = torch.arange(pairs.shape[1], device=tokens.device)
    distance = torch.zeros_like(tokens)
    distance[:, :-1] = torch.where(earlier >= 0, here - earlier, 0)
    return distance


def induction_targets(
    tokens: Integer[Tensor, "batch pos"], *, mask: Mask | None = None
) -> Int[Tensor, "batch pos"]:
    """The prediction of an induction head: the token that followed the last earlier `x[i]`.

    `x[k + 1]` for the largest k < i with `x[k] == x[i]`; -1 if `x[i]` is new, and at padding.
    `tokens` are `[batch, pos]` ids, and `mask` is True at real tokens, by default at ids of 0 or
    more. The last position has a target too. If the target equals `x[i + 1]`, the next token is
    `copyable`; the converse fails if the pair is older than the last occurrence of `x[i]`. (Olsson
    et al. 2022, "In-context Learning and Induction Heads".)

    Raises `ValueError` unless tokens and mask are `[batch, pos]`.
    """
    tokens = tokens.long()  # an unsigned type has no -1
    real = _real(tokens, mask)
    earlier = _previous_equal(tokens, real)
    followers = tokens.gather(1, (earlier + 1).clamp(min=0))
    return torch.where(earlier >= 0, followers, -1)


def _real(tokens: Int[Tensor, "batch pos"], mask: Mask | None) -> Bool[Tensor, "batch pos"]:
    """Which tokens are real."""
    if tokens.ndim != 2 or (mask is not None and mask.shape != tokens.shape):
        given = "none" if mask is None else tuple(mask.shape)
        raise ValueError(
            f"expected tokens [batch, pos] and a mask of the same shape; got {tuple(tokens.shape)} "
            f"and {given}: pass one text as a batch of one, tokens[None]"
        )
    return tokens >= 0 if mask is None else mask.bool()


def _previous_equal(
    keys: Int[Tensor, "batch pos"], valid: Bool[Tensor, "batch pos"]
) -> Int[Tensor, "batch pos"]:
    """The last earlier position with the same key, both valid; -1 if there is none."""
    # A stable sort puts equal keys side by side in order of position, so the left neighbour of each
    # is the occurrence before it. Padding lies outside the text, so it is never between two of
    # them.
    order = keys.argsort(dim=1, stable=True)
    ordered, usable = keys.gather(1, order), valid.gather(1, order)
    same = (ordered[:, 1:] == ordered[:, :-1]) & usable[:, 1:] & usable[:, :-1]
    neighbours = torch.full_like(order, -1)
    neighbours[:, 1:] = torch.where(same, order[:, :-1], -1)
    return torch.empty_like(order).scatter(1, order, neighbours)
