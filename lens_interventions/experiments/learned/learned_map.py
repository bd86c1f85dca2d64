"""Properties of a learned map, as pure functions of tensors.

A map `M` takes a row, the embedding `e`, to the vector `e M` that is written.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ...intervention.learned_write import LearnedWrite

# Rows of the vocabulary that are held in float64 at once.
_ROWS = 8192


@dataclass(frozen=True)
class SingularDirections:
    """`M` as a sum of `value * outer(input, output)`, the largest first.

    Attributes:
        values: `[direction]`.
        inputs: `[direction, d_model]`, the unit vectors that read an embedding.
        outputs: `[direction, d_model]`, the unit vectors that are then written.
    """

    values: Float[Tensor, " direction"]
    inputs: Float[Tensor, "direction d_model"]
    outputs: Float[Tensor, "direction d_model"]


def learned_map(write: LearnedWrite, layer: int) -> Float[Tensor, "d_model d_model"]:
    """`M` of a layer in float64.

    Raises `ValueError` if the write has no map but only a bias.
    """
    if write.up is None:
        raise ValueError("the write has no map: it was trained with the source 'zero'")
    index = write.layers.index(layer)
    up = write.up[index].detach().double()
    return up if write.down is None else write.down[index].detach().double() @ up


def singular_directions(matrix: Float[Tensor, "d_model d_model"], n: int) -> SingularDirections:
    """The first `n` singular directions; their signs are arbitrary."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return SingularDirections(values[:n], left.T[:n], right[:n])


def participation(values: Float[Tensor, " direction"]) -> float:
    """Participation ratio of singular values, `(sum s^2)^2 / sum s^4`: how many matter.

    It lies between 1 and their number, and is 0 for a map of zeros.
    """
    squares = values.square()
    return float(squares.sum().square() / squares.square().sum()) if squares.any() else 0.0


def identity_cosine(matrix: Float[Tensor, "d_model d_model"]) -> float:
    """Cosine of `M` to the identity, `tr M / (|M| sqrt(d))`; 1 for a positive multiple of it.

    It is at most `sqrt(k / d)` for a map of rank k, which a projection reaches, and 0 for a map of
    zeros.
    """
    size = matrix.norm()
    return float(matrix.trace() / (size * len(matrix) ** 0.5)) if size > 0 else 0.0


def token_cosines(
    embeddings: Float[Tensor, "token d_model"],
    matrix: Float[Tensor, "d_model d_model"],
    vectors: Float[Tensor, "token d_model"],
) -> tuple[float, float]:
    """Mean cosine of the write for a token to the token's own vector, and to another token's.

    The means over tokens are subtracted first, because a common part does not distinguish tokens. A
    row of zeros counts as 0.
    """
    mean_embedding, mean_vector = _mean(embeddings), _mean(vectors)
    own = other = 0.0
    for rows in torch.arange(len(vectors), device=vectors.device).split(_ROWS):
        written = _unit((embeddings[rows].double() - mean_embedding) @ matrix)
        own += float((written * _unit(vectors[rows].double() - mean_vector)).sum())
        # The other token is the previous row; for the first row it is the last.
        other += float((written * _unit(vectors[rows - 1].double() - mean_vector)).sum())
    return own / len(vectors), other / len(vectors)


def principal_axes(rows: Float[Tensor, "token d_model"], n: int) -> Float[Tensor, "d_model axis"]:
    """The first `n` principal axes of the rows as unit columns, in ascending order."""
    mean = _mean(rows)
    products = torch.zeros(len(mean), len(mean), dtype=mean.dtype, device=mean.device)
    for part in rows.split(_ROWS):
        centred = part.double() - mean
        products += centred.T @ centred
    return torch.linalg.eigh(products).eigenvectors[:, -n:]


def subspace_share(
    directions: Float[Tensor, "direction d_model"], axes: Float[Tensor, "d_model axis"]
) -> float:
    """The share of unit vectors that lies in the span of orthonormal axes.

    This is the mean of the squared lengths of the projections, from 0 to 1; for random vectors and
    n axes it is `n / d_model`.
    """
    return float((directions @ axes).square().sum(-1).mean())


def _mean(rows: Float[Tensor, "token d_model"]) -> Float[Tensor, " d_model"]:
    return rows.mean(0, dtype=torch.float64)


def _unit(rows: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_model"]:
    return torch.nn.functional.normalize(rows, dim=-1)
