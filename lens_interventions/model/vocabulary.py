"""Single tokens of the vocabulary: ids of named tokens, and the texts of ids."""

import operator
from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex

from .argument_types import python_numbers
from .kinds import ReadableModel
from .tokens import require_tokenizer, require_unicode

NamedTokens = str | SupportsIndex | Sequence[str | SupportsIndex]


def token_ids(bridge: ReadableModel, tokens: NamedTokens) -> list[int]:
    """Ids of tokens given as ids, in a tensor or array too, or as strings that are one token each.

    Raises `ValueError` if a string is not one token, the bridge has no tokenizer for it or an id is
    outside the vocabulary, and `TypeError` for an id that is not an integer.
    """
    tokens = python_numbers(tokens)
    if not isinstance(tokens, (str, SupportsIndex, Iterable)):
        raise TypeError(f"a token is a string or an id, got {tokens!r}")
    named = [tokens] if isinstance(tokens, (str, SupportsIndex)) else list(tokens)
    ids = []
    for token in named:
        if isinstance(token, str):
            require_tokenizer(bridge)
            require_unicode(token)
            pieces = bridge.to_tokens(token, prepend_bos=False, move_to_device=False)[0].tolist()
            # Tokenizers of SentencePiece put a space before a text, also before one that has it.
            if len(pieces) == 2 and token[:1] == " " and not bridge.tokenizer.decode(pieces[:1]):
                del pieces[0]
            if len(pieces) != 1:
                strings = [bridge.tokenizer.decode([piece]) for piece in pieces]
                hint = "" if token[:1] == " " else "; most tokenizers want a space before a word"
                raise ValueError(
                    f"{token!r} is not one token of this model but {len(pieces)}: {strings}{hint}"
                )
            token = pieces[0]
        if isinstance(token, bool) or not isinstance(token, SupportsIndex):
            flat = ": give one list, of tokens for all texts" if isinstance(token, Sequence) else ""
            raise TypeError(f"a token is a string or an id, got {token!r:.60}{flat}")
        token = operator.index(token)
        if not 0 <= token < int(bridge.cfg.d_vocab):
            raise ValueError(f"token id {token} is not in [0, {int(bridge.cfg.d_vocab)})")
        ids.append(token)
    return ids


def special_ids(bridge: ReadableModel) -> list[int]:
    """The ids that mark up a text, such as its end; none if the bridge has no tokenizer."""
    if bridge.tokenizer is None:
        return []
    added = bridge.tokenizer.added_tokens_decoder
    marks = {token for token, said in added.items() if said.special}
    return sorted(marks | set(bridge.tokenizer.all_special_ids))


def nameless_ids(bridge: ReadableModel, d_vocab: int) -> list[int]:
    """The ids below `d_vocab` without a token in the tokenizer; none if the bridge has none.

    Embeddings are often padded to a round number of rows, of which the last stand for no token.
    """
    if bridge.tokenizer is None:
        return []
    named = set(bridge.tokenizer.get_vocab().values())
    return [token for token in range(d_vocab) if token not in named]


def token_strings(bridge: ReadableModel, ids: Iterable[int]) -> dict[int, str]:
    """The text of each id, or its number if the bridge has no tokenizer.

    Half of a surrogate pair, which no table can hold, becomes an escape such as `\\ud800`.
    """
    if bridge.tokenizer is None:
        return {token: str(token) for token in ids}
    decoded = {token: _text(bridge.tokenizer, token) for token in sorted(ids)}
    return {
        token: text.encode(errors="backslashreplace").decode() for token, text in decoded.items()
    }


def _text(tokenizer: Any, token: int) -> str:
    """The text of a token within others: some tokenizers drop the first space that they decode."""
    alone = tokenizer.decode([token])
    spaced = f" {alone}"
    return spaced if tokenizer.decode([token, token]) == alone + spaced else alone
