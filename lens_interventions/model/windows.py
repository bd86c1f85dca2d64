"""Corpora in windows: pieces of texts that fit a model."""

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from .tokens import TextOrTokens, TokenBatch, require_texts, token_batch


def token_windows(
    bridge: TransformerBridge,
    texts: Iterable[TextOrTokens],
    *,
    window: int,
    prepend_bos: bool | None = None,
) -> Iterator[Int[Tensor, " pos"]]:
    """Each text in pieces of at most `window` tokens, and of what fits the model."""
    require_texts(texts)
    if window < 2:
        raise ValueError(f"window must be at least 2 tokens, got {window}")
    window = min(window, int(bridge.cfg.n_ctx))
    for text in texts:
        batch = token_batch(bridge, text, prepend_bos=prepend_bos, any_length=True)
        for row, mask in zip(batch.tokens, batch.mask, strict=True):
            yield from row[mask].split(window)


def as_batch(window: Int[Tensor, " pos"]) -> TokenBatch:
    """One window as a batch of one text."""
    return TokenBatch(window[None], torch.ones_like(window[None], dtype=torch.bool))
