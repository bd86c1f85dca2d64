"""Bases of the residual stream in which a map can be read, ordered by importance.

Two comments on the post discuss the choice of basis: principal components of the embedding, which
are orthogonal, or a non-negative factorization, whose components cannot cancel each other.
"""

import importlib.util
import operator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from .._summary import summary
from ..model.argument_types import require_whole_numbers
from ..model.exclusive import exclusive
from ..model.precision import as_double, at_least_float32
from ..model.readout import readout
from ..model.vocabulary import token_strings
from .input_probe import input_embeddings

BasisKind = Literal["pca", "nmf", "unembedding"]

# Factorizing more tokens takes long and changes little.
_TOKENS = 8192
_COMPONENTS = 64
_NAMED = 8


@dataclass(frozen=True, eq=False)
class EmbeddingBasis:
    """Directions of the residual stream, the most important first.

    Attributes:
        kind: "pca", "nmf" or "unembedding".
        directions: `[component, d_model]`, of unit length. Those of "nmf" are not orthogonal.
        importance: `[component]`, each component's share of the sum of squares of the table.
        tokens: for each component, the tokens with the largest part of it, largest first.
    """

    kind: BasisKind
    directions: Float[Tensor, "component d_model"]
    importance: Float[Tensor, " component"]
    tokens: tuple[tuple[str, ...], ...]

    __repr__ = summary


@exclusive
@torch.no_grad()
def embedding_basis(
    bridge: TransformerBridge,
    kind: BasisKind = "pca",
    *,
    n_components: int | None = None,
    seed: int = 0,
) -> EmbeddingBasis:
    """A basis of the residual stream, computed from the embedding or from the unembedding.

    **Arguments:**

    - `kind`:
        - `"pca"`: principal components of the embedding, as the model feeds it.
        - `"nmf"`: non-negative matrix factorization, scikit-learn's `NMF`, of 8,192 tokens drawn at
          random (or all, where there are fewer). Embeddings minus their mean have both signs, so
          their positive and negative parts are concatenated, `[max(e, 0), max(-e, 0)]`. A component
          is a non-negative row of this form, and its direction is the first half minus the second.
          Needs the extra `nmf`.
        - `"unembedding"`: right singular vectors of the unembedding minus its mean row, times the
            gain of the final norm, without what that norm takes out. The last ones are the
            directions to which logits respond least.
    - `n_components`: how many components; by default d_model, and 64 for `"nmf"`.
    - `seed`: the seed of the drawn tokens and of the factorization.

    Raises `ValueError` for an unknown kind, for a number of components that is not between 1 and
    d_model (or, for `"nmf"`, the number of tokens), for weights that are not finite, or for a model
    whose logits are not the final norm and the unembedding of its last residual; `TypeError` if
    that number is not a whole one; `RuntimeError` if scikit-learn is needed but not installed.
    """
    require_basis(kind)
    if kind == "unembedding":
        read = readout(bridge)
        ids = read.possible().nonzero()[:, 0]
        table = read.token_directions(read.weight[ids])
    else:
        table = input_embeddings(bridge)
        ids = torch.arange(len(table), device=table.device)
    if not table.isfinite().all():
        raise ValueError("the vectors of some tokens are not finite (NaN or infinite)")
    device, d_model = table.device, table.shape[1]
    size = n_components
    if size is None:
        size = min(_COMPONENTS, d_model) if kind == "nmf" else d_model
    require_whole_numbers(n_components=size, seed=seed)
    seed = operator.index(seed)
    if not 1 <= size <= d_model:
        raise ValueError(
            f"n_components must be between 1 and d_model = {d_model}, got {n_components}"
        )
    if kind == "nmf":
        generator = torch.Generator().manual_seed(seed)
        if size > len(ids):
            raise ValueError(
                f"n_components must be at most the number of tokens, {len(ids)}, got {size}"
            )
        drawn = torch.randperm(len(ids), generator=generator)[:_TOKENS].to(ids.device)
        ids, table = ids[drawn], table[drawn]
        directions, importance, amounts = _factorized(table, size, seed)
    else:
        table = as_double(table)
        values, vectors = torch.linalg.eigh(table.T @ table)
        directions = vectors.T.flip(0)[:size]
        importance = (values.clamp(min=0) / values.sum()).flip(0)[:size]
        amounts = table @ directions.T
    dtype = at_least_float32(bridge.W_E.dtype)
    return EmbeddingBasis(
        kind,
        directions.to(dtype).to(device),
        importance.to(dtype).to(device),
        _named(bridge, ids, amounts),
    )


def require_basis(kind: str) -> None:
    """Raise `ValueError` for an unknown kind, `RuntimeError` for one whose package is missing."""
    if kind not in get_args(BasisKind):
        raise ValueError(f"kind must be one of {', '.join(get_args(BasisKind))}; got {kind!r}")
    if kind == "nmf" and importlib.util.find_spec("sklearn") is None:
        raise RuntimeError(
            'kind="nmf" needs scikit-learn; from the checkout: pip install ".[nmf]", or take "pca"'
        )


def _factorized(
    table: Float[Tensor, "token d_model"], size: int, seed: int
) -> tuple[
    Float[Tensor, "component d_model"],
    Float[Tensor, " component"],
    Float[Tensor, "token component"],
]:
    """Directions, importance and amounts of a factorization, most important first."""
    from sklearn.decomposition import NMF

    parts = torch.cat([table.clamp(min=0), (-table).clamp(min=0)], dim=-1).cpu().float().numpy()
    # This gives the error to about three digits, which is enough for a basis.
    model = NMF(size, init="nndsvda", random_state=seed, tol=1e-3, max_iter=1000)
    amounts = model.fit_transform(parts)
    components = model.components_
    weight = np.square(amounts).sum(0) * np.square(components).sum(-1)
    order = np.argsort(-weight, kind="stable")
    positive, negative = np.split(components[order], 2, axis=-1)
    directions = torch.nn.functional.normalize(torch.from_numpy(positive - negative), dim=-1)
    importance = torch.from_numpy(weight[order] / np.square(parts).sum())
    return directions, importance, torch.from_numpy(amounts[:, order]).to(table.device)


def _named(
    bridge: TransformerBridge,
    ids: Int[Tensor, " token"],
    amounts: Float[Tensor, "token component"],
) -> tuple[tuple[str, ...], ...]:
    top = ids[amounts.topk(min(_NAMED, len(ids)), dim=0).indices.T].tolist()
    names = token_strings(bridge, {token for row in top for token in row})
    return tuple(tuple(names[token] for token in row) for row in top)
