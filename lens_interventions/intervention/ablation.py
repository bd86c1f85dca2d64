"""Hooks that project directions out of the residual stream."""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from ..model.argument_types import require_counts
from ..model.hooks import Hook, change_layers
from ..model.precision import as_double, widest


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
    - `directions`: `[direction, d_model]` to share them among all positions, or
        `[batch, pos, direction, d_model]` to give each position its own. They need not be
        orthogonal, independent or of unit length; rows of zeros take nothing out.
    - `mean`: `[d_model]`, the residual whose part along the directions replaces that of `r`; zero
        by default. With the mean residual, only deviations from it are taken out.

    Raises `ValueError` if `directions` have fewer axes, a tensor is not finite or the layer is
    below 0, and `TypeError` for what is not a tensor, or a layer that is not a whole number.
    The hooks raise `ValueError` if `directions` are as wide as another model, or are given by
    position and the run has another number of texts or positions.
    """
    require_counts(least=0, layer=layer)
    tensors = {"directions": directions} | ({} if mean is None else {"mean": mean})
    for name, given in tensors.items():
        if not isinstance(given, Tensor):
            raise TypeError(
                f"{name} must be a tensor, got {type(given).__name__} {given!r:.60}: make it one "
                "by torch.as_tensor"
            )
        if not given.isfinite().all():
            raise ValueError(f"{name} must be finite, got NaN or infinite numbers")
    if directions.ndim < 2:
        raise ValueError(
            f"directions must be [direction, d_model] or [batch, pos, direction, d_model], got "
            f"shape {list(directions.shape)}: for one direction give directions[None]"
        )

    return change_layers([layer], partial(_taken_out, directions=directions, mean=mean))


def _taken_out(
    resid: Float[Tensor, "batch pos d_model"],
    *,
    directions: Float[Tensor, "*row direction width"],
    mean: Float[Tensor, " width"] | None,
    **_layer: int,
) -> Float[Tensor, "batch pos d_model"]:
    """The residual without its part along the directions; raises what `ablate_directions` says."""
    if directions.shape[-1] != resid.shape[-1]:
        raise ValueError(
            f"the directions are {directions.shape[-1]} wide and the model is "
            f"{resid.shape[-1]}: use directions of this model's residual stream"
        )
    own = directions.shape[:-2]
    if own and own != resid.shape[:-1]:
        raise ValueError(
            f"directions are given for {list(own)} texts and positions, but the run has "
            f"{list(resid.shape[:-1])}: run the tokens that they were made for"
        )
    moved = resid if mean is None else resid - mean.to(resid)
    return resid - projected(moved, directions).to(resid)


def projected(
    vectors: Float[Tensor, "*row d_model"], directions: Float[Tensor, "*own direction d_model"]
) -> Float[Tensor, "*row d_model"]:
    """The projection of each vector onto the span of all directions, or of its own."""
    # In float32, hundreds of directions or nearly parallel ones lose some of their span.
    device = vectors.device
    vectors, directions = as_double(vectors), as_double(directions.to(device))
    # The Gram matrix squares ratios of lengths, and the pseudo-inverse drops what is then tiny.
    # Divided by the largest entry first, a length neither overflows nor underflows.
    for order in (torch.inf, 2):
        length = torch.linalg.vector_norm(directions, order, dim=-1, keepdim=True)
        directions = directions / length.where(length > 0, 1)
    # The Gram matrix is small, so its pseudo-inverse takes a fraction of the time.
    inverse = torch.linalg.pinv(directions @ directions.mT, hermitian=True)
    # A row axis lets one span serve all vectors, or each vector have its own.
    found = (vectors[..., None, :] @ directions.mT @ inverse @ directions)[..., 0, :]
    return found.to(widest(device)).to(device)
