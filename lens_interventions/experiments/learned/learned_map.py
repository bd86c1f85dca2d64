"""What a learned map is like: pure functions of tensors.

A map `M` takes an embedding `e`, a row, to what is written, `e M`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ...intervention.learned_write import LearnedWrite

# Of a vocabulary, that are held in float64 at a time.
_ROWS = 8192


@dataclass(frozen=True)
class SingularDirections:
    """`M` as a sum of `value * outer(input, output)`, the largest first.

    Attributes:
        values: `[direction]`.
        inputs: `[direction, d_model]`, unit vectors that an embedding is read by.
        outputs: `[direction, d_model]`, unit vectors that are written then.
    """

    values: Float[Tensor, " direction"]
    inputs: Float[Tensor, "direction d_model"]
    outputs: Float[Tensor, "direction d_model"]


def learned_map(write: LearnedWrite, layer: int) -> Float[Tensor, "d_model d_model"]:
    """`M` of a layer in float64.

    Raises `ValueError` for a write that has none, a bias alone.
    """
    if write.up is None:
        raise ValueError("the write has no map: it was trained with the source 'constant'")
    index = write.layers.index(layer)
    up = write.up[index].detach().double()
    return up if write.down is None else write.down[index].detach().double() @ up


def singular_directions(matrix: Float[Tensor, "d_model d_model"], n: int) -> SingularDirections:
    """The first `n` of them. Signs are arbitrary: a direction and its negative are one."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return SingularDirections(values[:n], left.T[:n], right[:n])


def participation(values: Float[Tensor, " direction"]) -> float:
    """How many directions share the work: `(sum s^2)^2 / sum s^4`, from 1 to their number.

    0 for a map of zeros.
    """
    squares = values.square()
    return float(squares.sum().square() / squares.square().sum()) if squares.any() else 0.0


def identity_cosine(matrix: Float[Tensor, "d_model d_model"]) -> float:
    """Cosine of `M` to the identity, `tr M / (|M| sqrt(d))`: 1 for any positive multiple of it.

    A map of rank k cannot exceed `sqrt(k / d)`, which a projection reaches. 0 for a map of zeros.
    """
    size = matrix.norm()
    return float(matrix.trace() / (size * len(matrix) ** 0.5)) if size > 0 else 0.0


def token_cosines(
    embeddings: Float[Tensor, "token d_model"],
    matrix: Float[Tensor, "d_model d_model"],
    vectors: Float[Tensor, "token d_model"],
) -> tuple[float, float]:
    """Mean cosine of what is written for a token to its own vector, and to another token's.

    The mean over tokens is taken off both first: what all tokens have in common tells none from
    another. A row of zeros counts as 0.
    """
    mean_embedding, mean_vector = _mean(embeddings), _mean(vectors)
    own = other = 0.0
    for rows in torch.arange(len(vectors), device=vectors.device).split(_ROWS):
        written = _unit((embeddings[rows].double() - mean_embedding) @ matrix)
        own += float((written * _unit(vectors[rows].double() - mean_vector)).sum())
        # The first row's other token is the last.
        other += float((written * _unit(vectors[rows - 1].double() - mean_vector)).sum())
    return own / len(vectors), other / len(vectors)


def principal_axes(rows: Float[Tensor, "token d_model"], n: int) -> Float[Tensor, "d_model axis"]:
    """The first `n` principal axes of the rows, as unit columns, the last one first."""
    mean = _mean(rows)
    products = torch.zeros(len(mean), len(mean), dtype=mean.dtype, device=mean.device)
    for part in rows.split(_ROWS):
        centred = part.double() - mean
        products += centred.T @ centred
    return torch.linalg.eigh(products).eigenvectors[:, -n:]


def subspace_share(
    directions: Float[Tensor, "direction d_model"], axes: Float[Tensor, "d_model axis"]
) -> float:
    """How much of some unit vectors lies in the span of some axes, which are orthonormal.

    The mean of squared lengths of the projections, 0 to 1; `n / d_model` by chance for n axes.
    """
    return float((directions @ axes).square().sum(-1).mean())


def _mean(rows: Float[Tensor, "token d_model"]) -> Float[Tensor, " d_model"]:
    return rows.mean(0, dtype=torch.float64)


def _unit(rows: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_model"]:
    return torch.nn.functional.normalize(rows, dim=-1)
