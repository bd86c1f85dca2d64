"""The residuals that trainings in one process share."""

import functools

from transformer_lens.model_bridge import TransformerBridge

from ...intervention.training.residual_store import ResidualStore
from ...model.fingerprint import model_hash


def shared_residuals(bridge: TransformerBridge, layer: int) -> ResidualStore:
    """The store of the trainings of this model at a layer."""
    return _store(model_hash(bridge), layer)


def forget_residuals() -> None:
    """Free the shared residuals."""
    _store.cache_clear()


@functools.lru_cache(maxsize=1)
def _store(_model: str, _layer: int) -> ResidualStore:
    # Trainings at one layer follow each other, and the residuals of two layers are too large to
    # keep.
    return ResidualStore()
