"""What a lens is to the code that reads through it."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Lens(Protocol):
    """A map per layer from the residual stream to the last residual point's coordinates."""

    def __call__(
        self, residual: Float[Tensor, "*row d_model"], layer: int
    ) -> Float[Tensor, "*row d_model"]:
        """`T_l(r[l])` for `layer` l in 0..L-1; the last point is never mapped."""
        ...
