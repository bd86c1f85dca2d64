"""The hooks at attention, where heads can be read or changed."""

from collections.abc import Sequence
from typing import Literal

from transformer_lens.model_bridge import TransformerBridge

from .hooks import missing_hooks

AttentionPoint = Literal["k", "v", "z", "pattern", "out"]


def attention_points(
    bridge: TransformerBridge, point: AttentionPoint, layers: Sequence[int]
) -> list[str]:
    """TransformerLens's names of a point at attention, one for each layer.

    The tensors are `[batch, pos, head, d_head]` at `k`, `v` and `z`, `[batch, head, query, key]` at
    `pattern`, and `[batch, pos, d_model]` at `out`.

    Raises `NotImplementedError` for a layer whose attention has no such point.
    """
    names = _names(point, layers)
    missing = missing_hooks(bridge, names)
    if missing:
        raise NotImplementedError(
            f"{bridge.cfg.architecture} has no {missing[0]}: its attention cannot be taken apart "
            "there"
        )
    return names


def has_attention_points(
    bridge: TransformerBridge, point: AttentionPoint, layers: Sequence[int]
) -> bool:
    """Whether the attention of all these layers has the point."""
    return not missing_hooks(bridge, _names(point, layers))


def _names(point: AttentionPoint, layers: Sequence[int]) -> list[str]:
    name = "hook_attn_out" if point == "out" else f"attn.hook_{point}"
    return [f"blocks.{layer}.{name}" for layer in layers]
