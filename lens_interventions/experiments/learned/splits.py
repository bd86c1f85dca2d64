"""The split of texts into those to train on and those to measure; no document is in both."""

from collections.abc import Sequence

from transformer_lens.model_bridge import TransformerBridge

from ...materials.corpora import read_documents
from ..design.material import induction_sequences, template_sequences, text_sequences
from ..design.sequences import TokenSequence, beginning, require_both_halves, token_list
from .settings import LearnedSettings


def measured_sequences(
    bridge: TransformerBridge, settings: LearnedSettings
) -> dict[str, list[TokenSequence]]:
    """The sequences to measure, by table.

    Raises `ValueError` if a half of a table has no sequences.
    """
    found = {
        "induction": induction_sequences(bridge, settings.material),
        "templates": template_sequences(bridge, settings.material),
        "text": text_sequences(bridge, settings.material),
    }
    for table, sequences in found.items():
        require_both_halves(sequences, table)
    return found


def training_texts(
    bridge: TransformerBridge, settings: LearnedSettings, measured: Sequence[TokenSequence]
) -> list[list[int]]:
    """The documents of the corpus that are not measured, whole, with a BOS in front."""
    corpus, titles = read_documents(settings.corpus), {text.cluster for text in measured}
    taken = {
        document.text for document in corpus if f"{settings.corpus}: {document.title}" in titles
    }
    return [
        [*beginning(bridge), *token_list(bridge, document.text)]
        for document in corpus
        if document.text not in taken
    ]
