"""The protocol of lenses: maps from the residual stream to the coordinates of the last point."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor
from transformer_lens.tools.analysis import JacobianLens

from ..model.kinds import ReadableModel
from .affine import AffineLens
from .jacobian import JacobianTransport


@runtime_checkable
class Lens(Protocol):
    """A map per layer from the residual stream to the last residual point's coordinates."""

    def __call__(
        self, residual: Float[Tensor, "*row d_model"], layer: int
    ) -> Float[Tensor, "*row d_model"]:
        """`T_l(r[l])` for `layer` l in 0..L-1, in the same shape; the last point is not mapped."""
        ...


def bound_lens(bridge: ReadableModel, lens: Lens | JacobianLens | None) -> Lens | None:
    """The lens as a function `f(residual, layer)`, checked to belong to the bridge.

    Raises `ValueError` if a fitted lens belongs to other weights, and `TypeError` for what cannot
    be called.
    """
    if isinstance(lens, JacobianLens):
        lens.validate_model(bridge)
        return JacobianTransport(lens)
    if isinstance(lens, AffineLens):
        lens.require_fits(bridge)
    if lens is not None and not callable(lens):
        raise TypeError(
            f"a lens is f(residual, layer) -> residual, got {lens!r:.60}: load a file with "
            "AffineLens.load or load_tuned_lens"
        )
    return lens


def lens_name(lens: Lens) -> str:
    """The name of a lens in a trajectory; of a function, its own."""
    return str(getattr(lens, "name", None) or getattr(lens, "__name__", type(lens).__name__))


def provenance(lens: Lens | JacobianLens) -> Mapping[str, Any]:
    """The settings with which a lens was fitted; empty for a function."""
    if isinstance(lens, JacobianLens):
        return {"n_prompts": lens.n_prompts, **lens.metadata}
    return lens.settings if isinstance(lens, AffineLens) else {}
