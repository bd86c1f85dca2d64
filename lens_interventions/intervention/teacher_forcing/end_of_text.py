"""The end of a long text, in two streams and as the plain model runs it, at the cost of two chunks.

Three things may depend on the length of a text. None needs the rest of the text to be run:

- What goes by place in the sequence (local windows, attention within chunks, ALiBi). Without a
  patch, a clean copy differs from a plain row in its distance by place to the cached keys and to
  the rows of its group, which is too long by up to all the rows of a chunk. No chunk reaches as far
  back as the last. The contents of keys and values do not matter if both runs use the same ones, so
  those of the first chunk are repeated. Only the positions before the chunk that a patch's window
  copies are run, as their rows come once more.
- What goes by position (rotary angles, sliding windows). The last chunk has the highest.
- What goes by the highest position of a run (rotary frequencies that change once a text is long).
  It differs most between the first chunk and the last, so these are run in one piece too.

Learned positions are added below the blocks, and come with the residual.
"""

from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import DynamicCache

from ...model.attention_cache import shorten
from ...model.partial_run import run_late_blocks, run_late_rows
from ...model.tokens import TokenBatch
from ..known_text import KnownText
from .two_streams import MAX_CHUNK, layout, one_chunk


def end_of_text(
    bridge: TransformerBridge,
    layer: int,
    resid: Float[Tensor, "1 pos d_model"],
    length: int,
    *,
    window: int | None,
    at_once: int,
) -> tuple[Float[Tensor, "1 row d_model"], Float[Tensor, "1 row d_model"]]:
    """`r[L]` of rows in the first and the last chunk of a text: in two streams, and plainly.

    **Arguments:**

    - `layer`: from where two copies run.
    - `resid`: rows of `r[layer]`, repeated up to `length`.
    - `length`: of the text. A text of one chunk is run whole.
    - `window`: that of the patches, which decides how many copies of a position there are.
    - `at_once`: how many positions the last chunk has.
    """
    start, device = max(length - at_once, 0), resid.device
    rows = layout(start, length, window, device)
    head, tail = torch.arange(min(start, MAX_CHUNK), device=device), rows.position[: rows.n_stream]
    tokens = torch.zeros(1, length, dtype=torch.long, device=device)
    text = KnownText.from_batch(TokenBatch.unpadded(tokens))

    def at(position: Int[Tensor, " row"]) -> Float[Tensor, "1 row d_model"]:
        return resid[:, position % resid.shape[1]]

    def in_order(position: Int[Tensor, " row"], cache: DynamicCache) -> Tensor:
        return run_late_rows(bridge, layer, at(position), position=position, cache=cache)

    actual: list[Tensor] = []
    expected: list[Tensor] = []
    first = DynamicCache()
    if start > 0:
        expected.append(in_order(torch.cat([head, tail]), DynamicCache()))
        actual.extend(in_order(part, first) for part in (head, tail))
        shorten(first, len(tail))

    def before() -> DynamicCache:
        copied = torch.arange(max(start - (window or 0), 0), start, device=device)
        cache = _repeated(first, start - len(copied), more=len(copied))
        if len(copied):
            in_order(copied, cache)
        return cache

    expected.append(run_late_blocks(bridge, layer, at(tail), cache=before()))
    actual.append(
        one_chunk(
            bridge,
            [None],
            at(rows.position),
            text,
            rows,
            layer=layer,
            cache=before(),
        )[0]
    )
    return torch.cat(actual, dim=1), torch.cat(expected, dim=1)


def _repeated(cache: DynamicCache, length: int, *, more: int) -> DynamicCache:
    """A cache of `length` keys and values, those of `cache` again and again; `more` will follow."""
    longer, layers = DynamicCache(), cast(list[Any], cache.layers)
    for i, layer in enumerate(layers if length + more else ()):
        if layer.is_initialized:
            longer.update(_tiled(layer.keys, length), _tiled(layer.values, length), i)
        else:
            # The model reads the length of the text off its first block, also where that is idle.
            idle = torch.zeros(1, 1, length + more, 1)
            longer.update(idle, idle, i)
    return longer


def _tiled(
    state: Float[Tensor, "batch head pos d_head"], length: int
) -> Float[Tensor, "batch head length d_head"]:
    return state[:, :, torch.arange(length, device=state.device) % state.shape[2]]
