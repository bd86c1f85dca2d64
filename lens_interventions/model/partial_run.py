"""The blocks from a layer up, run on a residual: as the model would, or on rows of any layout.

The blocks below do nothing during the run.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.exceptions import StopAtLayerException
from transformers import Cache, DynamicCache

from .attention_cache import as_argument
from .attention_masks import additive_masks
from .capabilities import blocks_return_tuples
from .hooks import Hook, hooked, stop, without_hooks
from .points import FINAL, hook_name
from .readout import refuse_readout_hooks
from .replaced_forwards import replaced_forwards
from .user_hooks import has_temporary_hooks

# Rows that go through a block at a time.
BLOCK_ROWS = 512

# Parts that run again for the late blocks, or are read without their hooks.
_NOT_AS_IS = ("rotary_emb", "ln_final", "unembed")


def run_late_blocks(
    bridge: TransformerBridge,
    layer: int,
    resid: Float[Tensor, "batch pos d_model"],
    *,
    cache: Cache | None = None,
) -> Float[Tensor, "batch pos d_model"]:
    """`r[L]` from `r[layer]` of whole texts; nothing is unembedded.

    With a `cache`, `resid` continues the texts whose keys and values it holds. The model then
    counts positions and makes its masks by those of its first block.
    """
    inputs = {} if cache is None else {"use_cache": True, **as_argument(bridge, cache)}
    return _run(bridge, layer, resid, (), FINAL, **inputs)


def run_late_rows(
    bridge: TransformerBridge,
    layer: int,
    resid: Float[Tensor, "batch row d_model"],
    *,
    position: Int[Tensor, " row"],
    visible: Bool[Tensor, "row key"] | Bool[Tensor, "batch row key"] | None = None,
    cache: Cache | None = None,
    fwd_hooks: Sequence[Hook] = (),
    until: str = FINAL,
) -> Float[Tensor, "batch row d_model"]:
    """`r[L]`, or another point, of rows that enter block `layer` as `resid`.

    **Arguments:**

    - `position`: the position of each row. Several rows may share one.
    - `visible`: which keys each row attends to, the cached ones and then those of these rows,
        before the model's own sliding windows, which are cut here. Without a batch axis the same
        for all texts. By default those of no later position than the row's.
    - `cache`: keys and values of positions 0, 1 and so on, none by default; those of these rows are
        appended.
    - `fwd_hooks`: hooks inside the blocks for this run.
    - `until`: the residual point at which the run stops.
    """
    cache = DynamicCache() if cache is None else cache
    cached = torch.arange(cache.get_seq_length(layer), device=position.device)
    distance = position[:, None] - torch.cat([cached, position])
    visible = distance >= 0 if visible is None else visible
    seen = visible if visible.ndim == 3 else visible[None]
    masks = additive_masks(bridge, seen, distance, resid.dtype)
    return _run(
        bridge,
        layer,
        resid,
        fwd_hooks,
        until,
        attention_mask=_for_texts(masks, len(resid)),
        position_ids=position.expand(len(resid), -1),
        **as_argument(bridge, cache),
    )


def _for_texts(masks: Tensor | dict[str, Tensor], n_texts: int) -> Any:
    """Masks with a row for each text, without copies: XGLM takes no shared one."""
    if isinstance(masks, dict):
        return {kind: mask.expand(n_texts, -1, -1, -1) for kind, mask in masks.items()}
    return masks.expand(n_texts, -1, -1, -1)


def refuse_late_hooks(bridge: TransformerBridge, layer: int) -> None:
    """Raise `ValueError` if a user's hook would see rows other than the text's, or none.

    Hooks below `layer` are allowed, because those blocks run once, on the text as it is. So are
    lasting ones from there up, except on the unembedding, because the model is tried with them.
    """
    for name, point in bridge.hook_dict.items():
        family, _, rest = name.partition(".")
        late = family in _NOT_AS_IS or (family == "blocks" and int(rest.partition(".")[0]) >= layer)
        if late and has_temporary_hooks(point):
            others = [n for n, p in bridge.hook_dict.items() if p is point and n != name]
            raise ValueError(
                f"there is a hook on {' = '.join([name, *others])}: from block {layer} up the "
                "model runs on patched and clean copies of the text, and is read without hooks, "
                "which the hook does not expect. Remove it, or use it with patch.fwd_hooks in your "
                "own run; a function that has an argument fwd_hooks= accepts it there if it "
                "changes each position independently"
            )
    refuse_readout_hooks(bridge)


def _run(
    bridge: TransformerBridge,
    layer: int,
    resid: Float[Tensor, "batch row d_model"],
    fwd_hooks: Sequence[Hook],
    until: str,
    **inputs: Any,
) -> Float[Tensor, "batch row d_model"]:
    last = hook_name(until, int(bridge.cfg.n_layers))
    # After a user's lasting hooks at this point, which `resid` has passed already.
    enter = f"blocks.{layer}.hook_resid_pre", lambda _, hook: resid
    with (
        without_hooks(_of_embeddings(bridge)),
        only_blocks_from(bridge, layer),
        hooked(bridge, [enter, *fwd_hooks, (last, stop)]),
    ):
        return bridge(resid, **inputs)


def _of_embeddings(bridge: TransformerBridge) -> Iterator[HookPoint]:
    """The points of embeddings, which run in vain when blocks get another residual."""
    for name in ("embed", "pos_embed"):
        part = bridge._modules.get(name)
        if part is not None:
            yield from (each for each in part.modules() if isinstance(each, HookPoint))


@contextmanager
def only_blocks_below(bridge: TransformerBridge, layer: int) -> Iterator[None]:
    """Inside, calling the bridge returns `r[layer]`, before the hooks at that point."""

    def hand_back(*args: Any, **kwargs: Any) -> None:
        raise StopAtLayerException(_hidden_states(args, kwargs))

    with replaced_forwards([(bridge.blocks[layer], hand_back)]):
        yield


@contextmanager
def only_blocks_from(
    bridge: TransformerBridge, layer: int, resid: Float[Tensor, "batch pos d_model"] | None = None
) -> Iterator[None]:
    """Inside, the blocks below `layer` do nothing, and block `layer` gets `resid`.

    The block below hands over `resid`, so `layer` must then be above 0, and hooks on embeddings
    do not act. Without `resid`, block `layer` gets what the caller hands it.
    """
    as_tuple = layer > 0 and blocks_return_tuples(bridge)

    def hand_through(*args: Any, **kwargs: Any) -> Any:
        hidden_states = _hidden_states(args, kwargs)
        return (hidden_states,) if as_tuple else hidden_states

    def hand_over(*_args: Any, **_kwargs: Any) -> Any:
        return (resid,) if as_tuple else resid

    stand_ins = [hand_through] * layer
    if resid is not None:
        stand_ins[-1] = hand_over
    unused = () if resid is None else _of_embeddings(bridge)
    replaced = list(zip(list(bridge.blocks)[:layer], stand_ins, strict=True))
    with without_hooks(unused), replaced_forwards(replaced):
        yield


def _hidden_states(args: tuple, kwargs: dict[str, Any]) -> Any:
    return args[0] if args else kwargs["hidden_states"]
