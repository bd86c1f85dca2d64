"""Teacher forcing in one pass: a patched and a clean copy of the text, side by side.

When position t predicts, the positions before it are patched and t itself is not. So from the
patched layer up every position exists twice. A patched copy attends to the patched copies up to
and including itself; a clean copy attends to the patched copies before it and to itself; logits are
read at the clean copies. That is what a sampler computes at every t, in one forward.

With a window of w, only positions t - w .. t - 1 are patched when t predicts, and older ones are
not. Then an unpatched stream takes the place of the patched one. Each t has its own group of rows:
patched copies of t - w .. t - 1, and the clean t. They attend to the unpatched stream below t - w
and to each other. Without a window the group is the clean copy alone.

The text is processed in chunks. Their streams stay in a cache of keys and values and the groups are
dropped, so time and memory are linear in the length except for the attention itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import DynamicCache

from ...model.attention_cache import shorten
from ...model.hooks import Hook, change_layers
from ...model.partial_run import BLOCK_ROWS, run_late_rows
from ..bound_patch import BoundPatch, patch_copies
from ..known_text import KnownText

# The most positions in a chunk: on the embedded model, 64 and 256 take 1.1 times as long.
MAX_CHUNK = 128


@dataclass(frozen=True)
class Layout:
    """The rows of one chunk: a stream, then the group of each predicting position.

    Attributes:
        position: `[row]`, the position of each row.
        predicting: `[row]`, the position t of the group that the row belongs to, -1 in the stream.
        patched: `[row]`, whether a row is patched (where the patch applies at all).
        n_stream: how many rows the stream has; they come first.
        window: how many positions before t its group has; None if the stream is the patched one.
    """

    position: Int[Tensor, " row"]
    predicting: Int[Tensor, " row"]
    patched: Bool[Tensor, " row"]
    n_stream: int
    window: int | None

    @property
    def clean(self) -> Int[Tensor, " pos"]:
        """The rows at which the chunk's logits are read."""
        return (self.predicting == self.position).nonzero()[:, 0]


def layout(start: int, stop: int, window: int | None, device: torch.device) -> Layout:
    """The rows of positions `start .. stop - 1`."""
    stream = torch.arange(start, stop, device=device)
    offset = torch.arange(-(window or 0), 1, device=device)
    group = stream[:, None] + offset
    exists = group >= 0
    position = torch.cat([stream, group[exists]])
    predicting = torch.cat([torch.full_like(stream, -1), stream[:, None].expand_as(group)[exists]])
    in_stream = predicting < 0
    patched = torch.where(in_stream, window is None, position < predicting)
    return Layout(position, predicting, patched, len(stream), window)


def visible(rows: Layout, start: int) -> Bool[Tensor, "row key"]:
    """Which keys each row attends to: the stream before `start`, cached, then these rows."""
    cached = torch.arange(start, device=rows.position.device)
    key_position = torch.cat([cached, rows.position])
    key_group = torch.cat([torch.full_like(cached, -1), rows.predicting])
    position, group = rows.position[:, None], rows.predicting[:, None]
    not_later = key_position <= position
    stream_end = torch.where(group < 0, position + 1, group - (rows.window or 0))
    in_stream = (key_group < 0) & (key_position < stream_end)
    in_group = (group >= 0) & (key_group == group) & not_later
    return in_stream | in_group


def positions_at_once(n_texts: int, window: int | None) -> int:
    """How many positions of each of some texts go through the blocks at a time."""
    copies = 2 + (window or 0)
    return min(max(BLOCK_ROWS // (n_texts * copies), 32 // copies, 1), MAX_CHUNK)


def two_streams(
    bridge: TransformerBridge,
    patches: Sequence[BoundPatch | None],
    resid: Float[Tensor, "batch pos d_model"],
    text: KnownText,
    *,
    layer: int,
    chunk_size: int,
) -> Iterator[Float[Tensor, "patch batch chunk d_model"]]:
    """`r[L]` at the clean copies, chunk after chunk of positions.

    **Arguments:**

    - `patches`: patches that do not act below `layer` and have the same window in texts of this
        length; None is no patch.
    - `resid`: `r[layer]` of the whole texts; column i is position i of every text.
    - `layer`: from where two copies run.
    - `chunk_size`: how many positions go through the blocks at a time.
    """
    length = resid.shape[1]
    (window,) = {bound.patch.window_in(length) for bound in patches if bound} or {None}
    cache = DynamicCache()
    for start in range(0, length, chunk_size):
        rows = layout(start, min(start + chunk_size, length), window, resid.device)
        of_rows = resid[:, rows.position]
        yield one_chunk(bridge, patches, of_rows, text, rows, layer=layer, cache=cache)


def one_chunk(
    bridge: TransformerBridge,
    patches: Sequence[BoundPatch | None],
    resid: Float[Tensor, "batch row d_model"],
    text: KnownText,
    rows: Layout,
    *,
    layer: int,
    cache: DynamicCache,
) -> Float[Tensor, "patch batch chunk d_model"]:
    """`r[L]` at the clean copies of one chunk, whose stream joins the one in `cache`.

    **Arguments:**

    - `resid`: `r[layer]` of `rows`.
    - `cache`: keys and values of the stream before the chunk.
    """
    n_patches = len(patches)
    late = run_late_rows(
        bridge,
        layer,
        repeat(resid, "batch row d -> (patch batch) row d", patch=n_patches),
        position=rows.position,
        visible=visible(rows, cache.get_seq_length(layer)),
        cache=cache,
        fwd_hooks=_hooks(patches, layer, rows, text),
    )
    shorten(cache, len(rows.position) - rows.n_stream)
    return rearrange(
        late[:, rows.clean], "(patch batch) row d -> patch batch row d", patch=n_patches
    )


def _hooks(
    patches: Sequence[BoundPatch | None], lowest: int, rows: Layout, text: KnownText
) -> list[Hook]:
    position = rows.position.masked_fill(~rows.patched, -1).expand(len(text.tokens), -1)
    # The stream is the same for every later prediction, so it can be patched for the last one.
    predicting = torch.where(rows.predicting < 0, text.length[:, None] - 1, rows.predicting)

    def patched(resid: Tensor, *, layer: int) -> Tensor:
        here = {
            i: bound for i, bound in enumerate(patches) if bound and layer in bound.patch.layers
        }
        copies = list(resid.chunk(len(patches)))
        # Until a patch has acted, all copies are the same.
        groups = [list(here)] if layer == lowest else [[i] for i in here]
        for group in groups:
            written = patch_copies(
                [here[i] for i in group],
                copies[group[0]],
                layer=layer,
                position=position,
                text=text,
                predicting=predicting,
            )
            for i, copy in zip(group, written, strict=True):
                copies[i] = copy
        return torch.cat(copies)

    layers = {layer for bound in patches if bound for layer in bound.patch.layers}
    return change_layers(layers, patched)
