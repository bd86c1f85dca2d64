"""Texts and token ids as one padded batch."""

import os
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from .._summary import summary
from .kinds import ReadableModel
from .padding import warn_of_padding

TextOrTokens = (
    str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]] | Sequence[np.ndarray] | Tensor
)

Item = TypeVar("Item")
Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Token ids with the mask that separates real tokens from padding.

    Attributes:
        tokens: `[batch, pos]` ids on the model's device; padded entries hold an arbitrary valid id.
        mask: `[batch, pos]`, True at real tokens. The real tokens of a row are contiguous.
    """

    tokens: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"]

    __repr__ = summary

    @classmethod
    def unpadded(cls, tokens: Int[Tensor, "batch pos"]) -> "TokenBatch":
        """Rows of the same length, all of real tokens."""
        return cls(tokens, torch.ones_like(tokens, dtype=torch.bool))

    @classmethod
    def of_rows(cls, rows: Sequence[Int[Tensor, " _"]], *, pad: int = 0) -> "TokenBatch":
        """Rows of any lengths, padded on the right with the id `pad`."""
        lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
        column = torch.arange(int(lengths.max()), device=lengths.device)
        tokens = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=pad)
        return cls(tokens, column < lengths[:, None])

    def rows(self) -> list[Int[Tensor, " _"]]:
        """The real tokens of each row."""
        return [row[mask] for row, mask in zip(self.tokens, self.mask, strict=True)]

    @property
    def lengths(self) -> Int[Tensor, " batch"]:
        """Number of real tokens of each row."""
        return self.mask.sum(-1)

    @property
    def positions(self) -> Int[Tensor, "batch pos"]:
        """Position of each token counted from its row's first real token; 0 at padding."""
        return ((self.mask.cumsum(-1) - 1).clamp(min=0)) * self.mask

    @property
    def padded(self) -> bool:
        """Whether any entry is padding."""
        return not bool(self.mask.all())

    def padded_on(self, side: Literal["left", "right"]) -> "TokenBatch":
        """The same rows with all padding at one end, as narrow as the longest row.

        On the right a causal model ignores padding; on the left all rows end at the last column.
        """
        # A stable sort by "is a token" or "is padding" leaves the tokens in their order.
        order = (self.mask if side == "left" else ~self.mask).int().argsort(dim=-1, stable=True)
        width = int(self.lengths.max())
        kept = order[:, -width:] if side == "left" else order[:, :width]
        return TokenBatch(self.tokens.gather(-1, kept), self.mask.gather(-1, kept))

    @property
    def left_padded(self) -> bool:
        """Whether any row begins with padding, so that positions differ from column numbers."""
        return not bool(self.mask[:, 0].all())


def is_text(text_or_tokens: object) -> TypeGuard[str | Sequence[str]]:
    """Whether it is a text or a list of texts, and not ids."""
    return isinstance(text_or_tokens, str) or (
        isinstance(text_or_tokens, Sequence)
        and len(text_or_tokens) > 0
        and all(isinstance(item, str) for item in text_or_tokens)
    )


def token_batch(
    bridge: ReadableModel,
    text_or_tokens: TextOrTokens,
    *,
    prepend_bos: bool | None = None,
    attention_mask: Tensor | None = None,
    any_length: bool = False,
) -> TokenBatch:
    """Turn one text, a list of texts, ids, lists of ids or an id tensor into a `TokenBatch`.

    Texts and lists are tokenised one at a time and padded on the right, whatever the tokenizer's
    own side is. In a causal model nothing to the right of a token reaches it, so the result for a
    prompt does not depend on its batch.

    **Arguments:**

    - `bridge`: gives the tokenizer, the device, the vocabulary and the context length.
    - `text_or_tokens`: the input to convert.
    - `prepend_bos`: whether texts begin with a BOS token; by default as `bridge.to_tokens` does.
        Only for texts.
    - `attention_mask`: `[batch, pos]`, nonzero at real tokens; only for an id tensor, which may be
        padded on either side. Without it a tensor that seems to be padded is read with a warning.
    - `any_length`: allow more tokens than the model's context, for reading in pieces.

    Raises `ValueError` if a text has no tokens, such as an empty one without a BOS, or does not fit
    the model's context, an id is outside the vocabulary, a mask has gaps, or a mask comes with a
    text or `prepend_bos` with ids, and `TypeError` if the input is neither text nor ids. Of several
    texts the message names the one by its number.
    """
    if attention_mask is not None and not isinstance(text_or_tokens, Tensor):
        raise ValueError("attention_mask goes with a tensor of token ids; texts are padded here")
    if is_text(text_or_tokens):
        texts = [text_or_tokens] if isinstance(text_or_tokens, str) else list(text_or_tokens)
        batch = TokenBatch.of_rows(_each(texts, lambda text: _tokenize(bridge, text, prepend_bos)))
    elif isinstance(text_or_tokens, Tensor):
        batch = _from_tensor(text_or_tokens, attention_mask)
        if attention_mask is None:
            warn_of_padding(bridge, batch.tokens)
    else:
        _require_ids(text_or_tokens)
        batch = TokenBatch.of_rows(_each(_as_rows(text_or_tokens), _id_row))
    _each(batch.rows(), lambda ids: _check(bridge, ids, any_length))
    if prepend_bos is not None and not is_text(text_or_tokens):
        raise ValueError(
            f"prepend_bos={prepend_bos} goes with texts, and token ids are read as they are: leave "
            "it out"
        )
    device = bridge.cfg.device
    return TokenBatch(batch.tokens.to(device), batch.mask.to(device))


def _require_ids(given: Any) -> None:
    """Raise `TypeError` for what is no sequence of ids, or of rows of them."""
    if isinstance(given, Sequence) and any(isinstance(each, str) for each in given):
        raise TypeError(f"expected texts or ids, got both in one list: {reprlib.repr(given):.80}")
    if isinstance(given, Sequence) and len(given) > 0:
        return
    if isinstance(given, Mapping) and "input_ids" in given:
        raise TypeError(
            f"expected a text or ids, got a {type(given).__name__} of a tokenizer: for "
            'enc = tokenizer(...), pass enc["input_ids"], attention_mask=enc["attention_mask"]'
        )
    instead = ""
    if hasattr(given, "tolist"):  # an array or a column of a table, which are no sequences
        holds_texts = any(isinstance(each, str) for each in given.tolist())
        instead = ": pass list(texts)" if holds_texts else ": make it a tensor by torch.as_tensor"
    if isinstance(getattr(given, "text", None), str):
        instead += ": pass its .text"
    raise TypeError(
        "expected a text, a non-empty list of texts, token ids or an id tensor; got "
        f"{type(given).__name__} {reprlib.repr(given):.80}{instead}"
    )


@contextmanager
def about(what: str) -> Iterator[None]:
    """Say in a `ValueError` or `TypeError` what it is about: "text 3", or an argument."""
    try:
        yield
    except (ValueError, TypeError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{what}: {error}") from error


def require_texts(bridge: ReadableModel, texts: Iterable[TextOrTokens]) -> None:
    """Raise `TypeError` for what is no iterable of texts, though Python iterates over it.

    The letters of one text, or the names in a mapping or a table, would count as texts. Of a tensor
    every row is a text, so it may seem to be padded, which gives a warning.
    """
    if isinstance(texts, str):
        raise TypeError("expected an iterable of texts, got one text: put it in a list")
    if isinstance(texts, Mapping) or hasattr(texts, "columns"):
        raise TypeError(
            f"expected an iterable of texts, got a {type(texts).__name__}, of which only the names "
            "would be read: pass its texts, such as those of one column, or its token ids"
        )
    if not isinstance(texts, Iterable):
        such_as = ", such as [path.read_text('utf-8')]" if isinstance(texts, os.PathLike) else ""
        raise TypeError(
            f"expected an iterable of texts, got a {type(texts).__name__}: give a list{such_as}"
        )
    if isinstance(texts, Tensor) and texts.ndim == 2:
        warn_of_padding(bridge, texts)


def require_unicode(text: str) -> None:
    """Raise `ValueError` for a text with half of a surrogate pair, which is not a character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start} of the text is half of a surrogate pair "
            f"({text[error.start]!r}): read the file as UTF-8, or replace it by "
            "text.encode(errors='replace').decode()"
        ) from error


def _tokenize(bridge: ReadableModel, text: str, prepend_bos: bool | None) -> Tensor:
    require_tokenizer(bridge)
    require_unicode(text)
    # The tokenizer would silently cut a long text; the length is checked with the ids instead.
    tokens = bridge.to_tokens(text, prepend_bos=prepend_bos, truncate=False, move_to_device=False)
    if tokens.numel() == 0:
        what = f"the text {text!r} has no tokens" if text else "the text is empty"
        instead = "" if prepend_bos else ", or prepend_bos=True"
        raise ValueError(f"{what}: give at least one token to read{instead}")
    return tokens[0]


def require_tokenizer(bridge: ReadableModel) -> None:
    """Raise `ValueError` if the bridge has no tokenizer."""
    if bridge.tokenizer is None:
        raise ValueError("this bridge has no tokenizer: pass token ids instead of text")


def _each(items: Sequence[Item], convert: Callable[[Item], Made]) -> list[Made]:
    """What becomes of each item; an error says which of several it is about."""
    made = []
    for number, item in enumerate(items):
        with about(f"text {number}") if len(items) > 1 else nullcontext():
            made.append(convert(item))
    return made


def _as_rows(ids: Sequence) -> list:
    return list(ids) if isinstance(ids[0], (Sequence, Tensor, np.ndarray)) else [ids]


def _id_row(row: Sequence[int] | np.ndarray | Tensor) -> Tensor:
    try:
        # Torch reads no array backwards or of another byte order, and warns of one that cannot be
        # written to. The type makes a copy.
        ids = torch.as_tensor(
            row.astype(row.dtype.newbyteorder("=")) if isinstance(row, np.ndarray) else row
        )
    except (TypeError, ValueError, RuntimeError):  # no numbers, or too large ones
        ids = torch.empty(0)
    if ids.ndim != 1 or ids.numel() == 0 or not _holds_integers(ids):
        raise TypeError(
            f"expected a non-empty list of integer token ids, got {reprlib.repr(row):.80}"
        )
    return ids.long()


def _holds_integers(ids: Tensor) -> bool:
    return not (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool)


def _from_tensor(tokens: Tensor, attention_mask: Tensor | None) -> TokenBatch:
    if not _holds_integers(tokens) or tokens.ndim not in (1, 2):
        raise TypeError(
            f"expected integer token ids of shape [pos] or [batch, pos], got {tokens.dtype} of "
            f"shape {tuple(tokens.shape)}"
        )
    tokens = torch.atleast_2d(tokens).long()
    if tokens.numel() == 0:
        raise ValueError(f"there are no tokens to read: shape {tuple(tokens.shape)}")
    if attention_mask is None:
        return TokenBatch.unpadded(tokens)
    mask = torch.atleast_2d(torch.as_tensor(attention_mask)).to(tokens.device)
    if mask.isnan().any():
        raise ValueError("attention_mask has nan: give 1 at real tokens and 0 at padding")
    mask = mask != 0
    if mask.shape != tokens.shape:
        raise ValueError(
            f"attention_mask has shape {tuple(mask.shape)}, but the tokens {tuple(tokens.shape)}"
        )
    if not mask.any(-1).all():
        raise ValueError("attention_mask leaves a row without any token")
    # 0/1 differences: contiguous real tokens start once and stop once.
    starts = (mask.int().diff(dim=-1) == 1).sum(-1) + mask[:, 0].int()
    if (starts != 1).any():
        raise ValueError("attention_mask has a gap: pad on the left or on the right only")
    return TokenBatch(tokens, mask)


def _check(bridge: ReadableModel, ids: Int[Tensor, " pos"], any_length: bool) -> None:
    context = int(bridge.cfg.n_ctx)
    if len(ids) > context and not any_length:
        raise ValueError(
            f"{len(ids)} tokens do not fit the model's context of {context}: shorten the text "
            "(teacher forcing, and functions with max_tokens=, read longer ones)"
        )
    d_vocab = int(bridge.cfg.d_vocab)
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= d_vocab:
        raise ValueError(
            f"token ids must be in [0, {d_vocab}), got ids from {low} to {high}: were they made by "
            "another model's tokenizer?"
        )
