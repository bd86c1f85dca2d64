"""What is trained on and what is measured: no document is both."""

import re
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from transformer_lens.model_bridge import TransformerBridge

from ...materials import Document
from ...materials.sources import read_documents
from ..copying.sequences import (
    TokenSequence,
    beginning,
    induction_sequences,
    template_sequences,
    text_sequences,
    token_list,
)
from .settings import LearnedSettings

PYTHON_CODE = "python_code"

# More of a file than any setting reads.
_CODE_LENGTH = 8192


def python_code() -> tuple[Document, ...]:
    """Source of Python's standard library: each public module from its first definition on.

    On every machine that runs CPython from source files. What stands above, docstring and licence,
    is prose. The text differs between Python versions.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    documents = []
    for file in sorted(folder.glob("[a-z]*.py")):
        found = re.search(r"^(?:def|class) .*", file.read_text(encoding="utf-8"), re.M | re.S)
        if found:
            documents.append(Document(file.stem, found[0][:_CODE_LENGTH], "code"))
    return tuple(documents)


def documents(source: str) -> Sequence[Document]:
    """The documents of a text: "python_code", or what the copying experiment knows."""
    return python_code() if source == PYTHON_CODE else read_documents(source)


def measured_sequences(
    bridge: TransformerBridge, settings: LearnedSettings
) -> dict[str, list[TokenSequence]]:
    """What is measured, by table.

    Raises `ValueError` where a half of a table has no sequences.
    """
    found = {
        "induction": induction_sequences(bridge, settings.material),
        "templates": template_sequences(bridge, settings.material),
        "text": text_sequences(bridge, settings.material, documents),
    }
    for table, sequences in found.items():
        missing = {"selection", "report"} - {text.half for text in sequences}
        if missing:
            raise ValueError(
                f"there is nothing for {table} on the {missing.pop()} half: give more texts"
            )
    return found


def training_texts(
    bridge: TransformerBridge, settings: LearnedSettings, measured: Sequence[TokenSequence]
) -> list[list[int]]:
    """The documents of the corpus that are not among the measured ones, whole, a BOS in front."""
    corpus, titles = documents(settings.corpus), {text.cluster for text in measured}
    taken = {
        document.text for document in corpus if f"{settings.corpus}: {document.title}" in titles
    }
    return [
        [*beginning(bridge), *token_list(bridge, document.text)]
        for document in corpus
        if document.text not in taken
    ]
