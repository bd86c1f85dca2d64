"""The rows at which logits are read, few at a time, and the values that are kept."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ...model.readout import LOGIT_ROWS

Reduce = Callable[[Tensor, Tensor], Shaped[Tensor, "patch row *rest"]]
"""What is kept of logits `[patch, row, d_vocab]` and of the next tokens `[patch, row]` there."""


@dataclass(frozen=True)
class LogitRows:
    """Which positions of some texts are read, and how their logits are reduced.

    Attributes:
        reduce: from logits and next tokens to the values that are kept.
        following: the next token of every position.
        where: which positions are read.
    """

    reduce: Reduce
    following: Int[Tensor, "batch pos"]
    where: Bool[Tensor, "batch pos"]

    def values(
        self,
        chunks: Iterable[Float[Tensor, "patch batch chunk _"]],
        read: Callable[[Tensor], Float[Tensor, "patch row d_vocab"]],
    ) -> Iterator[Shaped[Tensor, "patch batch chunk *rest"]]:
        """The values of consecutive chunks of positions, NaN where nothing is read.

        `read` makes logits of rows `[patch, row, _]`.
        """
        start = 0
        for chunk in chunks:
            stop = start + chunk.shape[2]
            yield self._values(chunk, read, start, stop)
            start = stop

    def _values(
        self, chunk: Tensor, read: Callable[[Tensor], Tensor], start: int, stop: int
    ) -> Tensor:
        where = self.where[:, start:stop]
        following = repeat(
            self.following[:, start:stop][where], "row -> patch row", patch=len(chunk)
        )
        size = max(1, LOGIT_ROWS // len(chunk))
        values = torch.cat(
            [
                self.reduce(read(rows), ids)
                for rows, ids in zip(
                    chunk[:, where].split(size, dim=1), following.split(size, dim=1), strict=True
                )
            ],
            dim=1,
        )
        if where.all():
            return rearrange(
                values, "patch (batch pos) ... -> patch batch pos ...", batch=len(where)
            )
        all_rows = values.new_full((len(chunk), *where.shape, *values.shape[2:]), torch.nan)
        all_rows[:, where] = values
        return all_rows
