"""The residual stream of texts at chosen points."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeGuard

from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import DynamicCache

from .attention_cache import as_argument
from .capabilities import fills_cache, frequencies_change_after
from .hooks import capture, missing_hooks, require_hooks
from .kinds import ReadableModel, architecture
from .points import INPUT, hook_name
from .tokens import TokenBatch
from .user_hooks import has_user_hooks

# Texts of up to this length go through the blocks whole, longer ones this many rows at a time.
_WHOLE = 512

_CHUNK_ROWS = 128


def residuals(
    bridge: ReadableModel, batch: TokenBatch, labels: Iterable[str], **forward: Any
) -> list[Float[Tensor, "batch pos d_model"]]:
    """The residual stream at the given points, `[batch, pos, d_model]` each.

    Runs the bridge with the user's hooks on, and stops at the last point: nothing is unembedded.
    `forward` is passed on to the bridge.

    Raises `ValueError` if the model has no such point (blocks whose attention and MLP run in
    parallel have no middle, and an SAE may replace a hook) or the batch is padded on the left.
    """
    _require_no_left_padding(batch)
    n_layers = int(bridge.cfg.n_layers)
    names = [hook_name(label, n_layers) for label in labels]
    missing = missing_hooks(bridge, [name for name in names if name.endswith("_mid")])
    if missing:
        raise ValueError(
            f"{architecture(bridge)} has no {missing[0]}: its blocks run attention and MLP in "
            "parallel, have an SAE there or are not attention blocks; read it with incl_mid=False"
        )
    require_hooks(bridge, names)
    return capture(bridge, batch.tokens, names, **forward)


def text_residuals(
    bridge: ReadableModel, tokens: Int[Tensor, " pos"], labels: Iterable[str], *, first: int = 0
) -> list[Float[Tensor, "some d_model"]]:
    """The residual stream of one text at the given points, from position `first` on.

    Raises `ValueError` if a residual is not finite, and what `residuals` raises.
    """
    labels = list(labels)
    streams = residuals(bridge, TokenBatch.unpadded(tokens[None]), labels)
    streams = [stream[0, first:] for stream in streams]
    for label, stream in zip(labels, streams, strict=True):
        if not (finite := stream.isfinite().all(-1)).all():
            place = first + int((~finite).nonzero()[0, 0])
            raise ValueError(
                f"the residual stream is not finite (NaN or infinite) at {label}, at position "
                f"{place} of {len(tokens)} tokens: look for a hook that writes such values, or a "
                "half-precision overflow"
            )
    return streams


def residual_chunks(
    bridge: ReadableModel, batch: TokenBatch, labels: Sequence[str]
) -> Iterator[tuple[int, dict[str, Float[Tensor, "batch chunk d_model"]]]]:
    """The residual stream by label, in chunks of columns, each with the number of its first column.

    For a long text, only the keys and values are held, and neither the whole residual stream nor
    the attention scores. A text is one chunk if it is short, if there are hooks on the bridge,
    which may have been made for the whole text, if its length turns on other rotary frequencies, if
    only the input is asked for, or on a `HookedTransformer`.

    Raises `ValueError` if the model has no such point or the batch is padded on the left.
    """
    _require_no_left_padding(batch)
    width = batch.tokens.shape[1]
    # Learned positions are counted from the keys in the cache, and below the first block there are
    # none.
    whole = width <= _WHOLE or set(labels) <= {INPUT}
    if whole or has_user_hooks(bridge) or not _may_be_cut(bridge, width):
        yield 0, dict(zip(labels, residuals(bridge, batch, labels), strict=True))
        return
    cache = DynamicCache()
    step = max(1, _CHUNK_ROWS // len(batch.tokens))
    for start in range(0, width, step):
        # Padding on the right is run like any token, and never read.
        tokens = batch.tokens[:, start : start + step]
        part = TokenBatch.unpadded(tokens)
        streams = residuals(bridge, part, labels, use_cache=True, **as_argument(bridge, cache))
        yield start, dict(zip(labels, streams, strict=True))


def residual_pieces(
    bridge: ReadableModel, batch: TokenBatch, labels: Sequence[str]
) -> Iterator[tuple[int, int, dict[str, Float[Tensor, "part chunk d_model"]]]]:
    """The residual stream by label, in pieces: the first text and column of each, and its streams.

    Of many texts, only some are held at a time. Each text is cut as `residual_chunks` cuts it.
    Texts stay together if there are hooks on the bridge, which may have been made for all of them,
    and if the longest turns on other rotary frequencies, as it then does for all.

    Raises `ValueError` if the model has no such point or the batch is padded on the left.
    """
    _require_no_left_padding(batch)
    n_texts, width = batch.tokens.shape
    whole = has_user_hooks(bridge) or (
        isinstance(bridge, TransformerBridge) and width > frequencies_change_after(bridge)
    )
    together = n_texts if whole else max(1, _WHOLE // width)
    for first in range(0, n_texts, together):
        texts = batch
        if together < n_texts:
            rows = slice(first, first + together)
            columns = slice(int(batch.lengths[rows].max()))
            texts = TokenBatch(batch.tokens[rows, columns], batch.mask[rows, columns])
        for start, streams in residual_chunks(bridge, texts, labels):
            yield first, start, streams


def _require_no_left_padding(batch: TokenBatch) -> None:
    if batch.left_padded:
        # The models' own masks let padded rows see no key, and their NaN then reaches real tokens.
        raise ValueError("pad on the right: a causal model needs no mask for padding there")


def _may_be_cut(bridge: ReadableModel, width: int) -> TypeGuard[TransformerBridge]:
    """Whether the beginning of a text has the same keys and values alone as in the whole text."""
    # A HookedTransformer has a cache of another kind.
    if not isinstance(bridge, TransformerBridge):
        return False
    return fills_cache(bridge) and width <= frequencies_change_after(bridge)
