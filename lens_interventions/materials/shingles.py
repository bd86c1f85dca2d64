"""Texts that repeat each other, found by the runs of 13 words that they share.

Corpora contain the same passage in several documents: the Python reference prints a section alone
and again inside its chapter. A text that a write was trained on would then count as new in a
measurement. Thirteen words are the usual length for such a comparison (Brown et al. 2020, "Language
Models are Few-Shot Learners", appendix C): unrelated texts hardly ever share so many in a row.
"""

import re
from collections.abc import Sequence

from .document import Document

WORDS = 13
"""Words to a shingle."""

REPEATED = 0.2
"""A document repeats others if more than this share of its shingles stand in them.

What repeats at all mostly repeats half of itself or more, and what shares a phrase stays below a
tenth, so the number in between matters little.
"""


# Thai, Lao, Burmese, Khmer, kana and Han, which are written without spaces between words.
_ALONE = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)
# Accents and the vowel signs of Indian scripts, which belong to the letter before them.
_MARKS = "\u0300-\u036f\u0900-\u0963\u0966-\u0dff"
_WORD = re.compile(rf"[{_ALONE}]|(?:[^\W{_ALONE}]|[{_MARKS}])+")


def shingles(text: str) -> set[int]:
    """Hashes of all runs of 13 words in a text, or of the whole text if it is shorter.

    Case, punctuation and white space do not count. In scripts without spaces between words each
    character is one. The hashes are valid within one process.
    """
    words = _WORD.findall(text.casefold()) or [text]
    runs = range(max(len(words) - WORDS, 0) + 1)
    return {hash(tuple(words[start : start + WORDS])) for start in runs}


def share_in(own: set[int], others: set[int]) -> float:
    """The share of a text's shingles that are among those of other texts."""
    return len(own & others) / len(own)


def without_repeats(documents: Sequence[Document]) -> tuple[Document, ...]:
    """The documents without those that repeat longer ones, in their order.

    A document is dropped if more than `REPEATED` of its shingles are in documents that are kept.
    Longer documents are kept first: a section is dropped and its chapter stays, which keeps the
    most text. Of equally long documents, the first is kept.
    """
    own = [shingles(document.text) for document in documents]
    known: set[int] = set()
    kept = set()
    for index in sorted(range(len(documents)), key=lambda index: -len(own[index])):
        if share_in(own[index], known) <= REPEATED:
            kept.add(index)
            known |= own[index]
    return tuple(document for index, document in enumerate(documents) if index in kept)


def groups(documents: Sequence[Document]) -> list[int]:
    """The number of each document's group: documents that share a shingle are in one group.

    Documents that are connected through others are in one group too. If a split keeps groups whole,
    no 13 words in a row are on both sides.
    """
    from scipy.cluster.hierarchy import DisjointSet  # takes half a second

    joined, first = DisjointSet(range(len(documents))), dict[int, int]()
    for index, document in enumerate(documents):
        for shingle in shingles(document.text):
            joined.merge(index, first.setdefault(shingle, index))
    # The first document gives the number, so that numbers do not depend on the order of hashes.
    number = {index: min(group) for group in joined.subsets() for index in group}
    return [number[index] for index in range(len(documents))]
