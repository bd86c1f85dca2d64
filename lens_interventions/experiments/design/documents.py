"""Beginnings of documents, and documents that share no passage with others."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from transformer_lens.model_bridge import TransformerBridge

from ...drawing.labels import counted
from ...materials import Document
from ...materials.corpora import read_documents
from ...materials.shingles import groups
from .sequences import beginning, token_list
from .setting_checks import require_room


def document_beginnings(
    bridge: TransformerBridge,
    texts: Mapping[str, Sequence[Document]],
    *,
    documents: int,
    tokens: int,
    seed: int,
) -> list[dict[str, Any]]:
    """The beginnings of documents drawn from each source, after a BOS.

    Each has a `cluster`, its source and title, and at most `tokens` `tokens`. Those with fewer than
    two tokens after the BOS are left out, and those that an earlier source has, too.

    Raises `ValueError` if none is left, or if the model's context is shorter than `tokens`.
    """
    require_room(bridge, document_tokens=tokens)
    rng = np.random.default_rng([seed, 3])
    found = []
    for source, of_source in without_copies(texts).items():
        for index in rng.permutation(len(of_source))[:documents]:
            body = token_list(bridge, of_source[index].text)[: tokens - 1]
            ids = [*beginning(bridge), *body]
            if len(ids) > 2:
                found.append({"cluster": cluster_of(source, of_source[index]), "tokens": ids})
    if not found:
        raise ValueError(
            f"no document of {', '.join(texts)} has two tokens among its first {tokens}: give "
            "longer texts, or read more of each"
        )
    return found


def without_copies(texts: Mapping[str, Sequence[Document]]) -> dict[str, list[Document]]:
    """The documents of each source without those that an earlier source has, too.

    A document that is read twice is no second sample.
    """
    seen: set[str] = set()
    kept: dict[str, list[Document]] = {}
    for source, documents in texts.items():
        kept[source] = [document for document in documents if document.text not in seen]
        seen.update(document.text for document in documents)
    return kept


def one_of_related(texts: Mapping[str, Sequence[Document]]) -> dict[str, list[Document]]:
    """The first document of each group that shares passages, whatever its source.

    Documents that share a passage are no independent samples.
    """
    numbers = enumerate(groups([document for of in texts.values() for document in of]))
    return {
        source: [
            document
            for document, (number, first) in zip(documents, numbers, strict=False)
            if number == first
        ]
        for source, documents in texts.items()
    }


def unrelated_documents(
    sources: Sequence[str], clusters: Collection[str]
) -> list[tuple[str, Document]]:
    """The documents of the sources that share no passage with those whose `cluster` is given.

    They are not connected with one through other documents of the sources either.
    """
    documents = [
        (source, document)
        for source in dict.fromkeys(sources)
        for document in read_documents(source)
    ]
    group_of = groups([document for _, document in documents])
    taken = {
        group
        for group, (source, document) in zip(group_of, documents, strict=True)
        if cluster_of(source, document) in clusters
    }
    return [found for group, found in zip(group_of, documents, strict=True) if group not in taken]


def cluster_of(source: str, document: Document) -> str:
    """The name of a document, under which its rows are summed."""
    return f"{source}: {document.title}"


def documents_with_components(
    bridge: TransformerBridge,
    sources: Sequence[str],
    *,
    documents: int,
    tokens: int,
    seed: int,
    least: int,
) -> list[dict[str, Any]]:
    """Of `document_beginnings` of unrelated documents, those that `has_components` is true of.

    Raises `ValueError` if they are fewer than `least`.
    """
    texts = one_of_related({source: read_documents(source) for source in sources})
    found = document_beginnings(bridge, texts, documents=documents, tokens=tokens, seed=seed)
    found = [document for document in found if has_components(document["tokens"])]
    if len(found) < least:
        raise ValueError(
            f"{', '.join(sources)} gave {counted(len(found), 'document')} with two different "
            f"tokens after the first, and the experiment needs {least}: components are read off "
            "deviations from a document's mean, so give more documents, or longer ones"
        )
    return found


def has_components(tokens: Sequence[int]) -> bool:
    """Whether components along directions can be read off a document, and a token predicted.

    They are those of deviations from the document's mean, without the first token, whose residual
    is an outlier. So two tokens after it must differ.
    """
    return len(tokens) > 3 and len(set(tokens[1:])) > 1


def middle(points: Sequence[str]) -> Int[np.ndarray, " middle"]:
    """Indices of the middle third of the residual points, at least one."""
    first = len(points) // 3
    return np.arange(first, max(first + 1, 2 * len(points) // 3))
