"""The cache of keys and values, under any of the names of transformers and TransformerLens.

transformers 5.24 hands the cache to attention as `cache`. TransformerLens 4.3 looks only for
`past_key_values` and finds nothing, so each new token attends only to itself, without an error.
This module mends that, also for TransformerLens's own `generate`; docs/upstream.md has the same
change for TransformerLens itself.
"""

import functools
import inspect
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge, generalized_components
from transformer_lens.model_bridge.generalized_components.attention import AttentionBridge
from transformer_lens.model_bridge.generalized_components.position_embeddings_attention import (
    PositionEmbeddingsAttentionBridge,
)
from transformers import Cache, DynamicCache

# Kinds of attention that fill the cache in a forward of their own, if TransformerLens has them.
_FILL_THEMSELVES = ("MLAAttentionBridge", "GlmMoeDsaAttentionBridge")


def as_argument(bridge: TransformerBridge, cache: Cache) -> dict[str, Any]:
    """The cache under the name that the model's forward has for it."""
    parameters = inspect.signature(type(bridge.original_model).forward).parameters
    renamed = "cache" in parameters and "past_key_values" not in parameters
    return {"cache" if renamed else "past_key_values": cache}


def shorten(cache: Cache, by: int) -> None:
    """Drop the last `by` positions of the layers that hold any.

    `Cache.crop` of transformers before 5.22 fails at layers that hold no position.
    """
    layers: list[Any] = list(cache.layers)
    for layer in layers:
        if layer.get_seq_length() > 0:
            layer.crop(-by)


def _see_cache() -> None:
    """Let every attention of TransformerLens see a cache by either name, if it does not yet."""
    update = AttentionBridge._update_kv_cache
    if _fills(update):
        return

    @functools.wraps(update)
    def update_by_either_name(
        self: Any, k: Tensor, v: Tensor, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if kwargs.get("past_key_values") is None and "cache" in kwargs:
            kwargs["past_key_values"] = kwargs["cache"]
        # OLMo 2's norms leave k in float32; before 5.24 the cache made v the same.
        if isinstance(self, PositionEmbeddingsAttentionBridge):
            v = v.to(k.dtype)
        return update(self, k, v, **kwargs)

    AttentionBridge._update_kv_cache = update_by_either_name  # type: ignore[method-assign]
    for name in _FILL_THEMSELVES:
        if kind := getattr(generalized_components, name, None):
            kind.forward = _with_old_name(kind.forward)


def _with_old_name(forward: Any) -> Any:
    @functools.wraps(forward)
    def forward_with_old_name(self: Any, *args: Any, **kwargs: Any) -> Any:
        if "cache" in kwargs:
            kwargs.setdefault("past_key_values", kwargs.pop("cache"))
        return forward(self, *args, **kwargs)

    return forward_with_old_name


def _fills(update: Any) -> bool:
    """Whether this method of TransformerLens fills a cache that it is given as `cache`."""
    cache, vector = DynamicCache(), torch.zeros(1, 1, 1, 1)
    update(SimpleNamespace(_layer_idx=0, name="attn"), vector, vector, cache=cache)
    return cache.get_seq_length() > 0


def _restore_codegen() -> None:
    """Restore attributes of CodeGen's attention that TransformerLens 4.3 reads."""
    from transformers.models.codegen import modeling_codegen

    codegen: Any = modeling_codegen
    attention = codegen.CodeGenAttention
    if hasattr(attention, "_split_heads"):
        return
    attention.scale_attn = property(lambda self: self.head_dim**0.5)
    attention.embed_positions = property(
        lambda self: codegen.create_sinusoidal_positions(
            self.config.max_position_embeddings, self.rotary_dim or self.embed_dim
        )
    )


# This runs once, before any model does, since a process has one TransformerLens.
_see_cache()
_restore_codegen()
