"""Tokens that stood earlier in the same text, and came as a surprise there."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def surprise_distance(
    tokens: Int[Tensor, "batch pos"], nats: Float[Tensor, "batch next"], surprising: float
) -> Int[Tensor, "batch next"]:
    """How many tokens back each next token first stood, if it was surprising there; 0 for others.

    `tokens` are `[batch, pos]` ids without padding. `nats` are `[batch, pos - 1]`, the surprisal of
    `x[i + 1]` at i; nan and less than `surprising` are no surprise, nor is the first token of a
    text, whose surprisal is not known. Entry i of the result is about `x[i + 1]`, which must have
    stood before.

    Raises `ValueError` for ids below 0, a surprisal too many or too few, or if `surprising` is no
    number.
    """
    batch, width = tokens.shape
    if tuple(nats.shape) != (batch, width - 1):
        raise ValueError(
            f"expected the nats of every token but the first, of shape {(batch, width - 1)}; got "
            f"{tuple(nats.shape)}"
        )
    if math.isnan(surprising):
        raise ValueError("surprising must be a number of nats, got nan")
    if (tokens < 0).any():
        raise ValueError(
            f"an id is {int(tokens.min())}, and padding is no token: give each text alone, without "
            "its padding"
        )
    ids, dense = torch.unique(tokens, return_inverse=True)
    place = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    none = tokens.new_full((len(tokens), len(ids)), tokens.shape[1], dtype=torch.long)
    first = none.scatter_reduce(1, dense, place, "amin").gather(1, dense)[:, 1:]
    surprised = torch.nn.functional.pad(nats >= surprising, (1, 0))
    return torch.where(surprised.gather(1, first), place[:, 1:] - first, 0)
