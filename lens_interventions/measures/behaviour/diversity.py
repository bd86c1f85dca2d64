"""How much texts repeat: rep-n within one text, distinct-n over many."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ._lengths import row_lengths


def rep_n(
    tokens: Int[Tensor, "batch pos"], n: int, *, lengths: Int[Tensor, " batch"] | None = None
) -> Float[Tensor, " batch"]:
    """Share of each text's n-grams that repeat another: `1 - |unique n-grams| / |n-grams|`.

    This is seq-rep-n of Welleck et al. (2019), "Neural Text Generation with Unlikelihood Training".
    0 where no n-gram occurs twice, towards 1 in a loop. It grows with length, as every text comes
    back to its common n-grams: compare texts of equal length.

    A text with fewer than `n` tokens has no n-gram and gets nan: 0 would count it among the texts
    that did not repeat themselves, which it had no room to do.

    Raises `ValueError` unless `n >= 1` and the lengths fit.
    """
    values = [
        1 - len(torch.unique(grams, dim=0)) / len(grams) if len(grams) else math.nan
        for grams in _n_grams(tokens, n, lengths)
    ]
    return torch.tensor(values, dtype=torch.float64)


def distinct_n(
    tokens: Int[Tensor, "batch pos"], n: int, *, lengths: Int[Tensor, " batch"] | None = None
) -> float:
    """Distinct n-grams of all texts together, divided by their number of tokens.

    As in Li et al. (2016), "A Diversity-Promoting Objective Function for Neural Conversation
    Models": it counts over a *set* of texts, so that texts which are like each other score low
    even where none repeats itself, and it divides by tokens, not by n-grams. (For one text,
    distinct n-grams per n-gram is `1 - rep_n`.) It falls with the amount of text: compare sets of
    equal size.

    n-grams do not run from one text into the next. Texts with fewer than `n` tokens count with
    their tokens; nan if no text has `n`, since nothing could be distinct.

    Raises `ValueError` unless `n >= 1` and the lengths fit.
    """
    rows = _n_grams(tokens, n, lengths)
    grams = torch.cat(rows) if rows else tokens.new_empty(0, n)
    if len(grams) == 0:
        return math.nan
    return len(torch.unique(grams, dim=0)) / sum(row_lengths(tokens, lengths))


def _n_grams(
    tokens: Int[Tensor, "batch pos"], n: int, lengths: Int[Tensor, " batch"] | None
) -> list[Tensor]:
    if n < 1:
        raise ValueError(f"n-grams need n >= 1, got n={n}")
    return [
        row[:length].unfold(0, n, 1) if length >= n else row.new_empty(0, n)
        for row, length in zip(tokens, row_lengths(tokens, lengths), strict=True)
    ]
