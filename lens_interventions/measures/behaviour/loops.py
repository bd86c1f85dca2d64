"""Exact loops: stretches of a text that repeat, and whether the text ends in one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ._lengths import Lengths, row_lengths

MIN_ROUNDS = 3
"""Twice is a figure of speech; three full rounds in a row are where prose stops and loops begin."""

MIN_LENGTH = 16
"""Three rounds of a short period ("ha ha ha", "very, very, very") are ordinary language. Sixteen
tokens, about a sentence, are not: in 118,000 tokens of prose and Python documentation 31 stretches
go round three times, and one of them has sixteen tokens ("{:02X}{:02X}{:02X}{:02X}")."""


@dataclass(frozen=True)
class Loop:
    """A maximal stretch `[start, end)` of a text that repeats with a period.

    `tokens[i] == tokens[i + period]` for every `i` in `[start, end - period)`. This holds for no
    longer stretch around it and for no smaller period.

    Attributes:
        start: the onset, which is the position of the first token of the first round. The first
            *repeated* token is at `start + period`.
        end: position after the last token that continues the loop.
        period: tokens in one round.
    """

    start: int
    end: int
    period: int

    @property
    def length(self) -> int:
        """Tokens in the loop, the first round included."""
        return self.end - self.start

    @property
    def rounds(self) -> float:
        """The number of rounds, including an unfinished last one as a fraction."""
        return self.length / self.period


def find_loops(
    tokens: Int[Tensor, " pos"] | Sequence[int],
    *,
    min_rounds: int = MIN_ROUNDS,
    min_length: int = MIN_LENGTH,
    max_period: int | None = None,
) -> tuple[Loop, ...]:
    """All loops of at least `min_rounds` full rounds and `min_length` tokens, in order of start.

    `tokens` are the `[pos]` ids of one text. All periods are tried that leave room for
    `min_rounds`, up to `max_period` if that is given. A loop within another one is left out ("no no
    no" in every round of a longer loop), but loops may overlap at their ends.

    One vectorised comparison per period: O(pos * periods) time, O(pos) memory.

    Raises `ValueError` unless `min_rounds >= 2` (any text is a loop of one round),
    `min_length >= 1` and `max_period >= 1`, for several texts, and for ids below 0.
    """
    if min_rounds < 2 or min_length < 1 or (max_period is not None and max_period < 1):
        raise ValueError(
            "a loop needs min_rounds >= 2, min_length >= 1 and max_period >= 1, got "
            f"{min_rounds=}, {min_length=}, {max_period=}"
        )
    ids = torch.as_tensor(tokens).cpu().numpy()
    if ids.ndim != 1:
        raise ValueError(
            f"expected the [pos] ids of one text, got shape {ids.shape}: pass one row, or use "
            "ending_loops"
        )
    if (ids < 0).any():
        raise ValueError("ids below 0 are padding, not tokens: leave them out, ids[ids >= 0]")
    longest = len(ids) // min_rounds
    runs = [
        Loop(start, end, period)
        for period in range(1, min(longest, max_period or longest) + 1)
        for start, end in _periodic_stretches(ids, period, max(min_rounds * period, min_length))
    ]
    # Multiples of a period have the same stretch. Of equal stretches, the one with the smallest
    # period, which came first, is kept.
    outermost: list[Loop] = []
    for run in sorted(runs, key=lambda run: -run.length):
        if not any(kept.start <= run.start and run.end <= kept.end for kept in outermost):
            outermost.append(run)
    return tuple(sorted(outermost, key=lambda run: run.start))


def ending_loop(
    tokens: Int[Tensor, " pos"] | Sequence[int],
    *,
    min_rounds: int = MIN_ROUNDS,
    min_length: int = MIN_LENGTH,
    max_period: int | None = None,
) -> Loop | None:
    """The loop in which the text ends, with a finished last round or not; None if there is none.

    If there are several, such as "a" repeated within the last round of a longer loop, it is the one
    that began first, with its smallest period. A loop has at least `min_rounds` full rounds and
    `min_length` tokens, and a period of at most `max_period` if that is given. So a loop of period
    p that began less than `min_rounds * p` or `min_length` tokens before the end cannot be
    distinguished from ordinary text yet: long loops late in a sample are missed.

    Raises `ValueError` unless `min_rounds >= 2`, `min_length >= 1` and `max_period >= 1`, for
    several texts, and for ids below 0.
    """
    loops = find_loops(tokens, min_rounds=min_rounds, min_length=min_length, max_period=max_period)
    # Two loops that both reached the end would lie one within the other: at most one is left.
    return next((loop for loop in loops if loop.end == len(tokens)), None)


def ending_loops(
    tokens: Int[Tensor, "batch pos"] | Sequence[Sequence[int]],
    *,
    lengths: Lengths | None = None,
    min_rounds: int = MIN_ROUNDS,
    min_length: int = MIN_LENGTH,
    max_period: int | None = None,
) -> list[Loop | None]:
    """The loop in which each row ends, or None; see `ending_loop`.

    `tokens` are `[batch, pos]` ids, and `lengths` the numbers of real tokens, by default all. A
    loop has at least `min_rounds` full rounds and `min_length` tokens, and a period of at most
    `max_period` if that is given.

    Raises `ValueError` unless `min_rounds >= 2`, `min_length >= 1` and `max_period >= 1`, and if
    the tokens are not `[batch, pos]`, the lengths do not fit them, or ids below 0, which pad a
    `Generation`, are among the tokens.
    """
    tokens = torch.as_tensor(tokens)
    return [
        ending_loop(
            row[:length], min_rounds=min_rounds, min_length=min_length, max_period=max_period
        )
        for row, length in zip(tokens, row_lengths(tokens, lengths), strict=True)
    ]


def _periodic_stretches(ids: np.ndarray, period: int, least: int) -> list[tuple[int, int]]:
    """Maximal `[start, end)` of `least` tokens or more, each equal to that `period` tokens later.

    The last `period` tokens of a stretch have no such token in it.
    """
    again = ids[:-period] == ids[period:]
    edges = np.flatnonzero(np.diff(again, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2] + period
    long = ends - starts >= least
    return list(zip(starts[long].tolist(), ends[long].tolist(), strict=True))
