"""Attention masks in the form that the models of transformers take."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from .kinds import text_config

_KNOWN = {"full_attention", "sliding_attention"}


def unknown_kinds(bridge: TransformerBridge) -> list[str]:
    """Kinds of layers that masks made here do not describe, such as attention within chunks."""
    return sorted(_layer_kinds(bridge) - _KNOWN)


def additive_masks(
    bridge: TransformerBridge,
    visible: Bool[Tensor, "batch row key"],
    distance: Int[Tensor, "row key"],
    dtype: torch.dtype,
) -> Float[Tensor, "batch 1 row key"] | dict[str, Float[Tensor, "batch 1 row key"]]:
    """The mask to add to attention scores, or one for each kind of layer in models that mix them.

    **Arguments:**

    - `visible`: which keys a row attends to, before the model's own sliding windows. The batch
        may be 1, for all.
    - `distance`: the row's position minus the key's. It cuts the windows, instead of the place in
        the sequence, so they are right whatever rows a cache has.
    - `dtype`: the dtype of the residual stream.
    """
    window = sliding_window(bridge)
    within = visible if window is None else visible & (distance < window)

    def additive(seen: Bool[Tensor, "batch row key"]) -> Float[Tensor, "batch 1 row key"]:
        mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
        return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]

    kinds = _layer_kinds(bridge)
    if not kinds:
        return additive(within)
    masks = {kind: additive(within if kind == "sliding_attention" else visible) for kind in kinds}
    return masks if len(kinds) > 1 else masks.popitem()[1]


def sliding_window(bridge: TransformerBridge) -> int | None:
    """How many positions a row sees in the layers that do not see all, by the configuration."""
    return getattr(text_config(bridge), "sliding_window", None)


def _layer_kinds(bridge: TransformerBridge) -> set[str]:
    return set(getattr(text_config(bridge), "layer_types", None) or ())
