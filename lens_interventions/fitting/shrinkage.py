"""The length that regression takes from a residual, restored where the logits do not see it.

Least squares predicts the mean of the last residuals that a layer's residual may lead to. A mean of
vectors is shorter than the vectors, and the less a layer knows, the shorter it is. The final norm
stretches it to full length again, so the fitted lens would be most certain where it knows least.
Models lower their own confidence by writing along directions that change the norm but hardly the
logits (Stolfo et al. 2024, "Confidence Regulation Neurons in Language Models"); a bias there does
the same for a lens.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ..model.precision import as_double, widest
from ..model.readout import Readout
from .ridge import RidgeMoments, RidgeSolution

# Rows of the unembedding that are widened to float64 at a time.
_ROWS = 8192


@torch.no_grad()
def unread_direction(head: Readout) -> Float[Tensor, " d_model"]:
    """The float64 unit vector that moves the logits least, among those that the norm counts.

    Only the spread of the logits over the vocabulary moves a distribution. The norm does not count
    a direction that it removes, such as the mean under a LayerNorm.
    """
    d_model = head.weight.shape[-1]
    basis = torch.eye(d_model, dtype=head.weight.dtype, device=head.weight.device)
    # Odd in its argument but for the norm's bias, which is even; all of `basis` has one length.
    image = as_double(head.normalize(basis) - head.normalize(-basis)) / 2
    mean = as_double(head.weight.mean(0, dtype=widest(head.weight.device)))
    covariance = torch.zeros_like(image)
    for rows in head.weight.split(_ROWS):
        centred = as_double(rows) - mean
        covariance.addmm_(centred.T, centred)
    seen = image @ covariance @ image.T
    if head.removes_mean():
        seen += seen.trace() / d_model  # along a constant, larger than the least of all
    return torch.linalg.eigh(seen)[1][:, 0]


def full_length_bias(
    held_out: RidgeMoments,
    index: int,
    solution: RidgeSolution,
    direction: Float[Tensor, " d_model"],
) -> Float[Tensor, " d_model"]:
    """A map's bias, moved along `direction` until outputs are as long as their targets.

    The lengths agree on average over the held-out rows, each weighted by one over its target's
    squared length. If no length is missing, the bias stays as it is.

    **Arguments:**

    - `held_out`: moments of those rows.
    - `index`: which regression.
    - `solution`: the regression of `last - stream` on the stream.
    - `direction`: a unit vector.
    """
    second = held_out.second(index)
    # x + x @ weight + bias, from [x, 1].
    identity = torch.eye(len(direction), dtype=second.dtype, device=second.device)
    affine = torch.cat([identity + solution.weight, solution.bias[None]])
    square = float((affine * (second @ affine)).sum())
    along = float(second[-1] @ affine @ direction)
    weights = float(second[-1, -1])
    missing = held_out.n - square
    if missing <= 0:
        return solution.bias
    # weights c² + 2 |along| c = missing, on the side where the outputs already are.
    size = (math.sqrt(along**2 + weights * missing) - abs(along)) / weights
    return solution.bias + math.copysign(size, along) * direction
