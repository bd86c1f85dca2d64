"""The blocks from a layer up, run on a residual: as the model would, or on rows of any layout.

The blocks below do nothing meanwhile.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.exceptions import StopAtLayerException
from transformers import Cache

from .attention_masks import additive_masks
from .block_range import only_blocks_from
from .points import FINAL, hook_name
from .readout import has_temporary_hooks

# Rows that go through a block at a time.
BLOCK_ROWS = 512

# What runs again for the late blocks, or reads them without its hooks.
_NOT_AS_IS = ("rotary_emb", "ln_final", "unembed")

Hook = tuple[str, Callable[..., Tensor | None]]


def run_late_blocks(
    bridge: TransformerBridge,
    layer: int,
    resid: Float[Tensor, "batch pos d_model"],
    *,
    fwd_hooks: Sequence[Hook] = (),
) -> Float[Tensor, "batch pos d_model"]:
    """`r[L]` from `r[layer]` of whole texts, with the hooks given; nothing is unembedded."""
    return _run(bridge, layer, resid, fwd_hooks)


def run_late_rows(
    bridge: TransformerBridge,
    layer: int,
    resid: Float[Tensor, "batch row d_model"],
    *,
    position: Int[Tensor, " row"],
    key_position: Int[Tensor, " key"],
    visible: Bool[Tensor, "row key"],
    cache: Cache,
    fwd_hooks: Sequence[Hook] = (),
) -> Float[Tensor, "batch row d_model"]:
    """`r[L]` of rows that enter block `layer` as `resid`.

    **Arguments:**

    - `position`: the position of each row. Several rows may share one.
    - `key_position`: the positions of the cached rows and of these rows, in that order.
    - `visible`: which of those keys each row attends to, before the model's own sliding windows,
        which are cut here.
    - `cache`: keys and values of earlier rows; those of these rows are appended.
    - `fwd_hooks`: hooks inside the blocks for this run.
    """
    distance = position[:, None] - key_position
    return _run(
        bridge,
        layer,
        resid,
        fwd_hooks,
        attention_mask=additive_masks(bridge, visible[None], distance, resid.dtype),
        position_ids=position.expand(len(resid), -1),
        past_key_values=cache,
    )


def refuse_late_hooks(bridge: TransformerBridge, layer: int) -> None:
    """Raise `ValueError` where a user's hook would see other rows than the text's, or none.

    Hooks below `layer` are welcome: those blocks run once, on the text as it is.
    """
    for name, point in bridge.hook_dict.items():
        family, _, rest = name.partition(".")
        late = family in _NOT_AS_IS or (family == "blocks" and int(rest.partition(".")[0]) >= layer)
        if late and has_temporary_hooks(point):
            raise ValueError(
                f"there is a hook on {name}: from the patched block {layer} up the model runs on "
                "patched and clean copies of the text, and is read without hooks, which the hook "
                "does not expect. Take it off, or use patch.fwd_hooks beside it"
            )


def _run(
    bridge: TransformerBridge,
    layer: int,
    resid: Float[Tensor, "batch row d_model"],
    fwd_hooks: Sequence[Hook],
    **inputs: Any,
) -> Float[Tensor, "batch row d_model"]:
    final = hook_name(FINAL, int(bridge.cfg.n_layers))
    with (
        only_blocks_from(bridge, layer),
        bridge.hooks(fwd_hooks=[*fwd_hooks, (final, _stop_here)]),
    ):
        return bridge(resid, start_at_layer=layer, **inputs)


def _stop_here(resid: Tensor, hook: HookPoint) -> None:
    raise StopAtLayerException(resid)
