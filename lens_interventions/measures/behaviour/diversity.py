"""How much texts repeat: rep-n within a text, distinct-n over many texts."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ._lengths import Lengths, row_lengths


def rep_n(
    tokens: Int[Tensor, "batch pos"], n: int, *, lengths: Lengths | None = None
) -> Float[Tensor, " batch"]:
    """Share of each text's n-grams that repeat an earlier one: `1 - |unique n-grams| / |n-grams|`.

    This is seq-rep-n of Welleck et al. (2019), "Neural Text Generation with Unlikelihood Training".
    It is 0 if no n-gram occurs twice, and approaches 1 in a loop. It grows with length, because
    every text repeats its common n-grams: compare texts of equal length.

    `tokens` are `[batch, pos]` ids, of which row i has `lengths[i]` real ones. A text with fewer
    than `n` tokens has no n-gram and gets nan, because 0 would count it among the texts that did
    not repeat themselves.

    Raises `ValueError` unless `n >= 1`, the tokens are `[batch, pos]` and the lengths fit, or if
    ids below 0, which pad a `Generation`, are among the tokens.
    """
    values = [
        1 - len(torch.unique(grams, dim=0)) / len(grams) if len(grams) else math.nan
        for grams in _n_grams(tokens, n, lengths)
    ]
    return torch.tensor(values, dtype=torch.float64)


def distinct_n(
    tokens: Int[Tensor, "batch pos"], n: int, *, lengths: Lengths | None = None
) -> float:
    """Distinct n-grams of all texts together, divided by their number of tokens.

    As in Li et al. (2016), "A Diversity-Promoting Objective Function for Neural Conversation
    Models", it counts over a *set* of texts, so similar texts score low even if none of them
    repeats itself, and it divides by tokens, not by n-grams. (For one text, distinct n-grams per
    n-gram is `1 - rep_n`.) It falls with the amount of text: compare sets of equal size.

    `tokens` are `[batch, pos]` ids, of which row i has `lengths[i]` real ones. n-grams do not cross
    from one text into the next. The tokens of texts with fewer than `n` tokens count too; nan if no
    text has `n` tokens.

    Raises `ValueError` unless `n >= 1`, the tokens are `[batch, pos]` and the lengths fit, or if
    ids below 0, which pad a `Generation`, are among the tokens.
    """
    rows = _n_grams(tokens, n, lengths)
    grams = torch.cat(rows) if rows else tokens.new_empty(0, n)
    if len(grams) == 0:
        return math.nan
    return len(torch.unique(grams, dim=0)) / sum(row_lengths(tokens, lengths))


def _n_grams(tokens: Int[Tensor, "batch pos"], n: int, lengths: Lengths | None) -> list[Tensor]:
    if n < 1:
        raise ValueError(f"n-grams need n >= 1, got n={n}")
    return [
        row[:length].unfold(0, n, 1) if length >= n else row.new_empty(0, n)
        for row, length in zip(tokens, row_lengths(tokens, lengths), strict=True)
    ]
