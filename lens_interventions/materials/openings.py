"""The first words of documents, to sample from or to repeat, besides texts written for that."""

import functools
import random
import re

from .docstrings import docstring_prose, prose_of
from .document import Document, Prompt
from .readers import python_reference
from .shingles import groups

# Words of a prompt and of a passage; the written ones are as long.
_PROMPT = range(16, 21)
_PASSAGE = range(8, 41)


def opening_prompts() -> tuple[Prompt, ...]:
    """Beginnings of documents, cut inside a sentence after 16 to 20 words."""
    return tuple(
        Prompt(text, document.register)
        for document in _documents()[0]
        if (text := _beginning(document.text))
    )


def opening_passages() -> tuple[Prompt, ...]:
    """The first sentences of other documents, 8 to 40 words."""
    return tuple(
        Prompt(text, document.register)
        for document in _documents()[1]
        if (text := _first_sentences(document.text))
    )


@functools.cache
def _documents() -> tuple[list[Document], list[Document]]:
    """Documents for prompts and, a third of all, for passages, in an order that is mixed but fixed.

    There is one from each group of documents that share a passage, so the two halves of any split
    share none. The library's own prose is not among them, because experiments measure the loss on
    it.
    """
    documents = [*python_reference(), *docstring_prose()]
    first_of_group: dict[int, Document] = {}
    for group, document in zip(groups(documents), documents, strict=True):
        first_of_group.setdefault(group, document)
    mixed = list(first_of_group.values())
    random.Random(0).shuffle(mixed)
    n_passages = len(mixed) // 3
    return mixed[n_passages:], mixed[:n_passages]


def _beginning(text: str) -> str | None:
    words = prose_of(text).split()
    for length in _PROMPT:
        if len(words) > length and words[length - 1].isalnum():
            return " ".join(words[:length])
    return None


def _first_sentences(text: str) -> str | None:
    sentences = re.split(r"(?<=[.!?]) (?=[\"'(]?[A-Z])", " ".join(prose_of(text).split()))
    for n in (1, 2):
        passage = " ".join(sentences[:n])
        if len(passage.split()) in _PASSAGE and passage.count('"') % 2 == 0:
            return passage
    return None
