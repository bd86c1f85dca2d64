"""Taking directions out of the residual stream: a projection, by hooks."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..model.hooks import Hook, change_layers


def ablate_directions(
    layer: int,
    directions: Float[Tensor, "*row direction d_model"],
    *,
    mean: Float[Tensor, " d_model"] | None = None,
) -> list[Hook]:
    """Hooks that take directions out of `r[layer]`: `r <- r - P (r - mean)`.

    `P` is the projection onto the span of the directions. Pass the hooks to
    `bridge.hooks(fwd_hooks=...)` or `bridge.run_with_hooks`.

    **Arguments:**

    - `layer`: the block whose incoming residual is changed.
    - `directions`: `[direction, d_model]` for all positions, or `[batch, pos, direction, d_model]`
        for each its own. They need not be orthogonal, independent or of unit length; rows of zeros
        take nothing out.
    - `mean`: what the span is set to, by default zero. With a mean residual what the directions
        have everywhere is left in place.

    The hooks raise `ValueError` in a run of other positions than `directions` has.
    """

    def take_out(
        resid: Float[Tensor, "batch pos d_model"], **_layer: int
    ) -> Float[Tensor, "batch pos d_model"]:
        own = directions.shape[:-2]
        if own and own != resid.shape[:-1]:
            raise ValueError(
                f"directions are given for {list(own)} texts and positions, and the run has "
                f"{list(resid.shape[:-1])}: run the tokens that they were made for"
            )
        moved = resid if mean is None else resid - mean.to(resid)
        return resid - projected(moved, directions).to(resid)

    return change_layers([layer], take_out)


def projected(
    vectors: Float[Tensor, "*row d_model"], directions: Float[Tensor, "*own direction d_model"]
) -> Float[Tensor, "*row d_model"]:
    """The projection of each vector onto the span of all directions, or of its own."""
    # No half precision: there is no pseudo-inverse in it on a CPU.
    wide = torch.promote_types(vectors.dtype, torch.float32)
    vectors, directions = vectors.to(wide), directions.to(vectors.device, wide)
    # Their Gram matrix is small: its pseudo-inverse takes a fraction of the time of theirs.
    inverse = torch.linalg.pinv(directions @ directions.mT, hermitian=True)
    # As rows of their own, so that one span serves all vectors or each has its own.
    return (vectors[..., None, :] @ directions.mT @ inverse @ directions)[..., 0, :]
