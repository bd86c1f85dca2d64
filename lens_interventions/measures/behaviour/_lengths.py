"""The number of real tokens of each right-padded row."""

from collections.abc import Sequence
from numbers import Integral

from jaxtyping import Int
from torch import Tensor

Lengths = Int[Tensor, " batch"] | Sequence[int]
"""How many tokens of each row are real."""


def row_lengths(tokens: Int[Tensor, "batch pos"], lengths: Lengths | None) -> list[int]:
    """`lengths` as a list, or the full width of every row.

    Raises `ValueError` if the tokens have no rows, the lengths do not fit them, or ids below 0,
    which pad a `Generation`, are among the tokens; `TypeError` for lengths that are not whole
    numbers.
    """
    if tokens.ndim != 2:
        raise ValueError(
            f"expected tokens [batch, pos], got shape {tuple(tokens.shape)}: pass one text as a "
            "batch of one, tokens[None]"
        )
    batch, width = tokens.shape
    as_list = [width] * batch if lengths is None else _whole_numbers(lengths)
    if len(as_list) != batch:
        raise ValueError(f"{len(as_list)} lengths for {batch} rows: give one per row")
    if any(not 0 <= length <= width for length in as_list):
        raise ValueError(f"lengths must be between 0 and the width {width}, got {as_list}")
    for row, length in zip(tokens, as_list, strict=True):
        if bool((row[:length] < 0).any()):
            raise ValueError(
                "ids below 0 are padding, not tokens: pass lengths=, such as those of a Generation"
            )
    return as_list


def _whole_numbers(lengths: Lengths) -> list[int]:
    numbers = lengths.tolist() if isinstance(lengths, Tensor) else list(lengths)
    if any(isinstance(number, bool) or not isinstance(number, Integral) for number in numbers):
        raise TypeError(f"lengths must be whole numbers, got {lengths!r:.60}")
    return list(map(int, numbers))
