"""What any lens can do: map a residual stream to the coordinates of the last point."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis import JacobianLens

from .affine import AffineLens


@runtime_checkable
class Lens(Protocol):
    """A map per layer from the residual stream to the last residual point's coordinates."""

    def __call__(
        self, residual: Float[Tensor, "*row d_model"], layer: int
    ) -> Float[Tensor, "*row d_model"]:
        """`T_l(r[l])` for `layer` l in 0..L-1; the last point is never mapped."""
        ...


def bound_lens(bridge: TransformerBridge, lens: Lens | JacobianLens | None) -> Lens | None:
    """The lens as a function `f(residual, layer)`, checked to belong to the bridge.

    Raises `ValueError` if a fitted lens is of other weights.
    """
    if isinstance(lens, JacobianLens):
        lens.validate_model(bridge)
        return _Transport(lens)
    if isinstance(lens, AffineLens):
        lens.require_fits(bridge)
    return lens


@dataclass(frozen=True)
class _Transport:
    """TransformerLens's Jacobian lens, whose layer l is the output of block l, in our layers.

    The input of block 0 has no map there, and is read as it is.
    """

    jacobian: JacobianLens

    @property
    def name(self) -> str:
        """What a trajectory calls it."""
        return f"Jacobian lens from {self.jacobian.n_prompts} prompts"

    def __call__(
        self, residual: Float[Tensor, "*row d_model"], layer: int
    ) -> Float[Tensor, "*row d_model"]:
        """`J_{l-1} r[l]`."""
        if layer == 0:
            return residual
        if layer - 1 not in self.jacobian.source_layers:
            raise ValueError(
                f"the Jacobian lens was not fitted for what leaves block {layer - 1}, which is "
                f"point {layer}_pre, but for blocks {self.jacobian.source_layers}: read others"
            )
        return self.jacobian.transport(residual, layer - 1).to(residual.dtype)
