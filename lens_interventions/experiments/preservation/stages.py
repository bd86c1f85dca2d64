"""The one stage: documents, counts of their tokens, and templates, as units."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ... import materials
from ...materials import Document
from ...materials.corpora import read_documents
from ..design.documents import cluster_of, document_beginnings, one_of_related, without_copies
from ..design.sequences import beginning, continuation, token_list
from ..engine.json_values import digest
from ..engine.results import Tables
from ..engine.run import Stage
from ..engine.work_units import Unit, unit_kind
from .lens_ranks import measure_templates, measure_tokens
from .settings import PreservationSettings


def plan(
    bridge: TransformerBridge, settings: PreservationSettings, _rows: Tables
) -> Sequence[Unit]:
    """All units of the experiment.

    Raises `ValueError` if no template can be used.
    """
    texts = {source: read_documents(source) for source in settings.texts}
    documents = document_beginnings(
        bridge,
        one_of_related(texts),
        documents=settings.documents,
        tokens=settings.document_tokens,
        seed=settings.seed,
    )
    items = template_items(bridge, settings)
    if not items:
        raise ValueError(
            f"with template_words={settings.template_words} and this model's tokenizer, no "
            "template has a word with the same tokens at its first place and where it is due "
            "again: give more words, or another model"
        )
    copies = {
        source: {document.title for document in texts[source]}
        - {document.title for document in once}
        for source, once in without_copies(texts).items()
    }
    counts = [
        Unit(
            "counts",
            f"{number:02d}",
            count_tokens,
            {"source": source, "text": text_digest(text), "copies": sorted(copies[source])},
        )
        for number, (source, text) in enumerate(texts.items())
    ]
    tokens = [
        Unit(
            "tokens",
            f"{number:03d}",
            measure_tokens,
            {"documents": part, "every": settings.every},
        )
        for number, part in enumerate(_parts(documents, settings.batch, at_least=2))
    ]
    templates = [
        Unit(
            "templates",
            f"{number:03d}",
            measure_templates,
            {"items": part, "every": settings.every},
        )
        for number, part in enumerate(_parts(items, settings.template_batch))
    ]
    return [*counts, *tokens, *templates]


STAGES: dict[str, Stage] = {"lens ranks": plan}


@unit_kind("counts of tokens")
def count_tokens(
    bridge: TransformerBridge, source: str, text: str, copies: Sequence[str]
) -> pd.DataFrame:
    """Count the tokens of each whole document of a source, without those with these titles.

    Raises `ValueError` if the source's text does not have the digest `text`.
    """
    documents = read_documents(source)
    if text_digest(documents) != text:
        raise ValueError(
            f"{source} differs from the text that the run was planned with: give every worker the "
            "same files and the same Python, and do not change them during the run"
        )
    left_out = set(copies)
    rows = [
        (cluster_of(source, document), token, count)
        for document in documents
        if document.title not in left_out
        for token, count in sorted(Counter(token_list(bridge, document.text)).items())
    ]
    found = pd.DataFrame(rows, columns=["document", "token", "count"])
    return found.assign(d_vocab=int(bridge.cfg.d_vocab))


def text_digest(documents: Sequence[Document]) -> str:
    """A hash of a source's text, which may change while a run is unfinished."""
    return digest([[document.title, document.text] for document in documents])


def template_items(
    bridge: TransformerBridge, settings: PreservationSettings
) -> list[dict[str, Any]]:
    """Templates with their word's tokens and the positions of its first occurrence.

    Templates whose word has other tokens at its second place are left out.
    """
    found = []
    start = list(beginning(bridge))
    templates = materials.templates()
    words: dict[tuple[str, str], dict[str, None]] = {}
    for item in templates:
        words.setdefault((item.group, item.frequency), {})[item.word] = None
    for number, item in enumerate(templates):
        # The first words of each group and frequency are wanted.
        among = list(words[item.group, item.frequency])
        if among.index(item.word) >= settings.template_words:
            continue
        word = continuation(bridge, item.prefix, item.continuation)
        prefix = [*start, *token_list(bridge, item.prefix)]
        at = item.prefix.index(item.continuation) if item.continuation in item.prefix else 0
        n_before = len(start) + (len(token_list(bridge, item.prefix[:at])) if at else 0)
        first = list(range(n_before, n_before + len(word)))
        if prefix[n_before : n_before + len(word)] == word and first[0] > 0:
            found.append(
                {
                    "item": number,
                    "group": item.group,
                    "frame": item.frame,
                    "said": item.word,
                    "frequency": item.frequency,
                    "distance": item.distance,
                    "prefix": prefix,
                    "word": word,
                    "first": first,
                }
            )
    return found


def _parts(items: Sequence[Any], size: int, *, at_least: int = 1) -> list[list[Any]]:
    """Consecutive parts of `size`; a last part that is too small joins the one before it."""
    parts = [list(items[start : start + size]) for start in range(0, len(items), size)]
    if len(parts) > 1 and len(parts[-1]) < at_least:
        parts[-2:] = [parts[-2] + parts[-1]]
    return parts
