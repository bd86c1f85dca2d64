"""Ridge regression from streamed moments: several regressions at once, in float64.

Memory holds only sums of products, of the size of the covariances, for any amount of data. Sums
over parts of the data add up to those over the whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..model.precision import as_double, widest

# The ridges to try, relative to a coordinate's own mean square.
RIDGES = tuple(10.0**exponent for exponent in range(-8, 2))


@dataclass(frozen=True)
class RidgeSolution:
    """`y = x @ weight + bias`, with its ridge.

    Attributes:
        weight: `[d_in, d_out]`.
        bias: `[d_out]`.
        ridge: relative to each coordinate's mean square.
    """

    weight: Float[Tensor, "d_in d_out"]
    bias: Float[Tensor, " d_out"]
    ridge: float


class RidgeMoments:
    """Weighted moments of inputs `[x, 1]` and targets y, of several regressions.

    Attributes:
        n_maps: how many regressions.
        n: rows added, counted once for all regressions.
    """

    def __init__(self, n_maps: int, d_in: int, d_out: int, device: torch.device | None = None):
        """All moments zero, on a device, or on the CPU if the device has no float64."""
        if device is not None and widest(device) != torch.float64:
            device = torch.device("cpu")
        options: dict[str, Any] = {"dtype": torch.float64, "device": device}
        self.n_maps, self.n = n_maps, 0
        # One more coordinate, constantly 1, carries the bias.
        self._xx = torch.zeros(n_maps, d_in + 1, d_in + 1, **options)
        self._xy = torch.zeros(n_maps, d_in + 1, d_out, **options)
        self._yy = torch.zeros(n_maps, **options)

    def add(
        self,
        index: int,
        x: Float[Tensor, "row d_in"],
        y: Float[Tensor, "row d_out"],
        scale: Float[Tensor, "row 1"],
    ) -> None:
        """Add rows to one regression; the square of `scale` is a row's weight."""
        y = as_double(y) * scale
        x = torch.cat([as_double(x), torch.ones_like(scale)], dim=-1) * scale
        self._xx[index].addmm_(x.T, x)
        self._xy[index].addmm_(x.T, y)
        self._yy[index] += y.square().sum()

    def pooled(self, indices: slice) -> "RidgeMoments":
        """One regression on the rows of several, in which each of these has the same weight."""
        maps = range(self.n_maps)[indices]
        _, d_in, d_out = self._xy.shape
        pooled = RidgeMoments(1, d_in - 1, d_out, self._xy.device)
        pooled.n = self.n * len(maps)
        for name, moment in pooled.tensors().items():
            moment.copy_(self.tensors()[name][indices].sum(0, keepdim=True))
        return pooled

    def second(self, index: int) -> Float[Tensor, "d_in_1 d_in_1"]:
        """Weighted second moments of the inputs `[x, 1]` of one regression."""
        return self._xx[index]

    def tensors(self) -> dict[str, Tensor]:
        """The moments by name, for a checkpoint."""
        return {"xx": self._xx, "xy": self._xy, "yy": self._yy}

    def restore(self, tensors: Mapping[str, Tensor], n: int) -> None:
        """Restore moments that `tensors` returned, and the number of rows."""
        for name, moment in self.tensors().items():
            moment.copy_(tensors[name])
        self.n = n

    def solve(self, index: int, held_out: "RidgeMoments") -> RidgeSolution:
        """The ridge regression with the smallest error on the held-out moments.

        Coordinates are standardized, because a few coordinates of a llama-like model are thousands
        of times larger than the rest. With a ridge, a direction in which nothing varies gets no
        weight. It is relative to the mean square, so a coordinate whose mean is a thousand times
        its spread counts for little.
        """
        spread = self._xx[index].diagonal().sqrt()
        unit = torch.where(spread > 0, 1 / spread, 0)  # a coordinate that is always 0 stays out
        values, vectors = torch.linalg.eigh(unit[:, None] * self._xx[index] * unit)
        projected = vectors.T @ (unit[:, None] * self._xy[index])
        back = unit[:, None] * vectors
        xx, xy, yy = held_out._xx[index], held_out._xy[index], held_out._yy[index]
        candidates = []
        for ridge in RIDGES:
            solution = back @ (projected / (values.clamp(min=0) + ridge)[:, None])
            # Squared error from the moments: yy - 2 s·xy + s·xx·s.
            error = yy - 2 * (solution * xy).sum() + (solution * (xx @ solution)).sum()
            candidates.append((float(error / yy.where(yy > 0, 1)), ridge, solution))
        _, ridge, best = min(candidates, key=lambda candidate: candidate[0])
        return RidgeSolution(best[:-1], best[-1], ridge)
