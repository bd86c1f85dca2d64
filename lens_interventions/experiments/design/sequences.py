"""Sequences of tokens that arms are measured on, in the selection half or the report half."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from ...model.text_pieces import bos_id
from ..engine.json_values import to_values

SELECTION, REPORT = "selection", "report"
"""The halves of the material, under the names that tables of finished runs hold."""


@dataclass(frozen=True)
class TokenSequence:
    """A text as the parameter of a unit.

    Attributes:
        number: unique within its part.
        half: "selection" or "report".
        cluster: the unit that an interval resamples: this sequence, its document or its word.
        tags: its kinds, separated by spaces.
        tokens: the ids, after a BOS.
        copied: how many tokens at the end are the copy; 0 in natural text.
        crossed: a second unit that an interval resamples, such as the frame around a word; empty if
            there are only clusters.
    """

    number: int
    half: str
    cluster: str
    tags: str
    tokens: tuple[int, ...]
    copied: int
    crossed: str = ""

    def values(self) -> dict[str, Any]:
        """As parameters of a unit."""
        return to_values(self)


def batches(texts: Iterable[TokenSequence], half: str, size: int) -> list[list[TokenSequence]]:
    """The texts of one half in batches of `size`, one for each unit.

    Texts of similar length go together, because shorter ones are padded.
    """
    of_half = [text for text in texts if text.half == half]
    of_half.sort(key=lambda text: (len(text.tokens), text.number))
    return [of_half[start : start + size] for start in range(0, len(of_half), size)]


def require_both_halves(texts: Iterable[TokenSequence], table: str) -> None:
    """Raise `ValueError` if one of the halves of a table has no sequences."""
    missing = {SELECTION, REPORT} - {text.half for text in texts}
    if missing:
        halves = " and ".join(sorted(missing))
        raise ValueError(f"there is nothing for {table} on the {halves} half: give more texts")


def beginning(bridge: TransformerBridge) -> tuple[int, ...]:
    """The BOS token, or nothing if the tokenizer has none."""
    bos = bos_id(bridge)
    return () if bos is None else (bos,)


def token_list(bridge: TransformerBridge, text: str) -> list[int]:
    """The ids of a text, without a BOS."""
    ids = bridge.to_tokens(text, prepend_bos=False, truncate=False, move_to_device=False)
    return ids[0].tolist()


def continuation(bridge: TransformerBridge, prefix: str, text: str) -> list[int]:
    """The ids that a text adds to those of a prefix.

    On its own, the text may have other tokens: SentencePiece puts a space before any text, so
    " word" becomes a space and a word. If prefix and text share a token at their seam, these are
    the ids of the text on its own.
    """
    before, whole = token_list(bridge, prefix), token_list(bridge, prefix + text)
    if whole[: len(before)] == before:
        return whole[len(before) :]
    return token_list(bridge, text)
