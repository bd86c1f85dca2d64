"""Texts cut into pieces that a model can read, and the pieces in batches."""

import hashlib
import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ..model.argument_types import require_whole_numbers
from ..model.text_pieces import bos_id, cut, token_rows
from ..model.tokens import TextOrTokens, TokenBatch
from .known_text import KnownText
from .patch import NextTokenPatch, listed

# Tokens that go through a block at a time, padding included; one piece may have more.
_BATCH_TOKENS = 512


def piece_length(bridge: TransformerBridge, max_length: int | None) -> int:
    """How many tokens are read at a time: by default 512, or the model's context if it is shorter.

    Raises `ValueError` if the length leaves nothing to predict or does not fit the model, and
    `TypeError` if it is not a whole number.
    """
    if max_length is not None:
        require_whole_numbers(max_length=max_length)
    context = int(bridge.cfg.n_ctx)
    length = min(512, context) if max_length is None else max_length
    if not 2 <= length <= context:
        raise ValueError(f"max_length must be from 2 to the model's {context}, got {max_length}")
    return operator.index(length)


def require_patches(
    patches: NextTokenPatch | Sequence[NextTokenPatch | None],
) -> tuple[NextTokenPatch, ...]:
    """One or more patches that act on texts without a prompt.

    Raises `ValueError` if there is none, one is None, or one depends on where a prompt ends.
    """
    given = listed(patches)
    real = tuple(patch for patch in given if patch is not None)
    if not real or len(real) < len(given):
        raise ValueError(
            "give one or more patches, and none that is None: the model without a patch is "
            f"measured too; got {patches}"
        )
    refuse_prompt_patches(real)
    return real


def refuse_prompt_patches(patches: Iterable[NextTokenPatch]) -> None:
    """Raise `ValueError` for a patch that depends on where a prompt ends: texts here have none."""
    if any(patch.positions == "generated" for patch in patches):
        raise ValueError(
            "positions='generated' depends on where a prompt ends, and these texts have none: give "
            "numbers, or patch all positions"
        )


@dataclass(frozen=True)
class TextTokens:
    """The tokens of one text.

    Attributes:
        tokens: `[pos]` ids.
        key: a hash of them.
        bos: the token that the model's texts begin with, if there is one.
    """

    tokens: Int[Tensor, " pos"]
    key: str
    bos: int | None

    def pieces(self, max_length: int) -> list[Int[Tensor, " _"]]:
        """Pieces of at most `max_length` tokens that have something to predict, as `cut` makes."""
        return [piece for piece in cut(self.tokens, max_length, bos=self.bos) if len(piece) > 1]


def text_tokens(
    bridge: TransformerBridge, texts: Iterable[TextOrTokens], prepend_bos: bool | None
) -> Iterator[TextTokens]:
    """Each text, or each row of a tensor of tokens.

    Raises `TypeError` for one text where many are expected.
    """
    bos = bos_id(bridge)
    for row in token_rows(bridge, texts, prepend_bos=prepend_bos):
        yield TextTokens(row, _hash(row), bos)


@dataclass(frozen=True)
class PieceBatch:
    """Pieces that are run together.

    Attributes:
        text: their tokens, padded on the right, each with a seed made from its tokens, so that
            random sources draw the same in any order and company.
        owners: for each piece the number of its text.
        finished: the texts that have no piece left.
    """

    text: KnownText
    owners: tuple[int, ...]
    finished: tuple[int, ...]


def piece_batches(
    texts: Iterable[tuple[int, TextTokens]],
    max_length: int,
    *,
    whole: bool = False,
    alone: bool = False,
) -> Iterator[PieceBatch]:
    """All pieces of numbered texts, in order, each `alone` or in batches.

    A text without any prediction is finished with the batch after it, or with none if it is last.

    Raises `ValueError` for a text longer than `max_length` if each is to be `whole`.
    """
    held: list[Tensor] = []
    owners: list[int] = []
    ended: list[int] = []

    def flush() -> PieceBatch:
        batch = PieceBatch(_known(held), tuple(owners), tuple(ended))
        for kept in (held, owners, ended):
            kept.clear()
        return batch

    for number, text in texts:
        if whole and len(text.tokens) > max_length:
            raise ValueError(
                f"text {number} has {len(text.tokens)} tokens and would be read in pieces of "
                f"{max_length}, but the patch's positions count from the start of a text: give "
                "shorter texts, or a greater max_length"
            )
        for piece in text.pieces(max_length):
            longest = max(len(each) for each in (*held, piece))
            if held and (alone or (len(held) + 1) * longest > _BATCH_TOKENS):
                yield flush()
            held.append(piece)
            owners.append(number)
        ended.append(number)
    if held:
        yield flush()


def _known(pieces: list[Tensor]) -> KnownText:
    # KnownText holds signed 64-bit seeds.
    seeds = [int(_hash(piece), 16) % 2**62 for piece in pieces]
    return KnownText.from_batch(TokenBatch.of_rows(pieces), text_seeds=torch.tensor(seeds))


def _hash(tokens: Tensor) -> str:
    return hashlib.sha256(tokens.cpu().long().numpy().tobytes()).hexdigest()[:16]
