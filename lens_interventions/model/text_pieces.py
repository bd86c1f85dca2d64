"""Texts of any length, cut into pieces that fit a model."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from .kinds import ReadableModel
from .tokens import TextOrTokens, TokenBatch, require_texts, token_batch


def token_rows(
    bridge: ReadableModel, texts: Iterable[TextOrTokens], *, prepend_bos: bool | None = None
) -> Iterator[Int[Tensor, " pos"]]:
    """The tokens of each text, or of each row of a tensor, without padding.

    Raises `TypeError` if `texts` is one text.
    """
    require_texts(texts)
    for text in texts:
        batch = token_batch(bridge, text, prepend_bos=prepend_bos, any_length=True)
        for row, mask in zip(batch.tokens, batch.mask, strict=True):
            yield row[mask]


def token_pieces(
    bridge: ReadableModel,
    texts: Iterable[TextOrTokens],
    *,
    length: int,
    prepend_bos: bool | None = None,
) -> Iterator[Int[Tensor, " pos"]]:
    """Each text in pieces of at most `length` tokens, or of the model's context if that is shorter.

    Raises `TypeError` if `texts` is one text, `ValueError` if `length` is below 2.
    """
    if length < 2:
        raise ValueError(f"a piece of text must have at least 2 tokens, got {length}")
    length = min(length, int(bridge.cfg.n_ctx))
    for row in token_rows(bridge, texts, prepend_bos=prepend_bos):
        yield from row.split(length)


def as_batch(piece: Int[Tensor, " pos"]) -> TokenBatch:
    """One piece as a batch of one text."""
    return TokenBatch(piece[None], torch.ones_like(piece[None], dtype=torch.bool))


def padded(pieces: Sequence[Int[Tensor, " _"]]) -> TokenBatch:
    """Several pieces as a batch, padded on the right with 0."""
    lengths = torch.tensor([len(piece) for piece in pieces], device=pieces[0].device)
    column = torch.arange(int(lengths.max()), device=lengths.device)
    return TokenBatch(
        torch.nn.utils.rnn.pad_sequence(list(pieces), batch_first=True), column < lengths[:, None]
    )
