"""The sequences of the copying experiment: random tokens said twice, templates, natural text."""

from collections.abc import Callable, Sequence

import numpy as np
from transformer_lens.model_bridge import TransformerBridge

from ... import materials
from ...materials import Document, Template
from ...materials.sources import read_documents
from ..design.sequences import REPORT, SELECTION, TokenSequence, beginning, continuation, token_list
from .settings import CopyingSettings


def induction_sequences(
    bridge: TransformerBridge, settings: CopyingSettings
) -> list[TokenSequence]:
    """`[BOS] + A + A`, A being distinct tokens drawn from the vocabulary, none of them special.

    Special to the tokenizer, that is. Tokens that a vocabulary keeps in reserve and no text is
    spelled with, such as Gemma's `<unused0>`, are drawn like any other.
    """
    special = set() if bridge.tokenizer is None else set(bridge.tokenizer.all_special_ids)
    ordinary = np.array([i for i in range(int(bridge.cfg.d_vocab)) if i not in special])
    rng = np.random.default_rng([settings.seed, 1])
    sequences = []
    selecting, reporting = settings.induction_sequences
    for number in range(selecting + reporting):
        said = rng.choice(ordinary, settings.induction_length, replace=False).tolist()
        half = SELECTION if number < selecting else REPORT
        tokens = (*beginning(bridge), *said, *said)
        sequences.append(TokenSequence(number, half, str(number), "", tokens, len(said)))
    return sequences


def template_sequences(bridge: TransformerBridge, settings: CopyingSettings) -> list[TokenSequence]:
    """Each template with its word, which are the last tokens; tags: rarity, distance and pieces.

    The frames are shared out between the halves, two of each group to either. Words are the
    clusters: a word stands in both halves, but in other sentences.
    """
    items = materials.templates()
    words = {
        half: _some_words(items, n)
        for half, n in zip((SELECTION, REPORT), settings.template_words, strict=True)
    }
    frames = list(dict.fromkeys(item.frame for item in items))
    sequences = []
    for number, item in enumerate(items):
        half = SELECTION if frames.index(item.frame) % 2 == 0 else REPORT
        if item.word not in words[half]:
            continue
        word = continuation(bridge, item.prefix, item.continuation)
        pieces = "single" if len(word) == 1 else "several"
        tokens = (*beginning(bridge), *token_list(bridge, item.prefix), *word)
        tags = f"{item.frequency} {item.distance} {pieces}"
        sequences.append(TokenSequence(number, half, item.word, tags, tokens, len(word)))
    return sequences


def text_sequences(
    bridge: TransformerBridge,
    settings: CopyingSettings,
    read: Callable[[str], Sequence[Document]] | None = None,
) -> list[TokenSequence]:
    """The beginnings of documents, alternately for one half and the other; the tag is the text.

    No document is taken twice, so none is on both halves: the Python reference has one under two
    titles. `read` gives the documents of each text, by default `read_documents`.
    """
    read = read or read_documents
    rng = np.random.default_rng([settings.seed, 2])
    sequences: list[TokenSequence] = []
    kept: set[str] = set()
    for source in settings.texts:
        documents = read(source)
        taken = dict(zip((SELECTION, REPORT), settings.documents, strict=True))
        for place, index in enumerate(rng.permutation(len(documents))):
            half = SELECTION if place % 2 == 0 else REPORT
            text = documents[index].text
            if place // 2 >= taken[half] or text in kept:
                continue
            kept.add(text)
            body = token_list(bridge, text)[: settings.document_tokens - 1]
            cluster, tag = f"{source}: {documents[index].title}", source.replace(" ", "_")
            tokens = (*beginning(bridge), *body)
            if len(tokens) > 2:
                sequences.append(TokenSequence(len(sequences), half, cluster, tag, tokens, 0))
    return sequences


def _some_words(items: Sequence[Template], n: int) -> set[str]:
    """`n` words of each frequency in each group, spread over the list, which grows in tokens."""
    words: dict[tuple[str, str], list[str]] = {}
    for item in items:
        known = words.setdefault((item.group, item.frequency), [])
        if item.word not in known:
            known.append(item.word)
    return {word for known in words.values() for word in known[:: max(len(known) // n, 1)][:n]}
