"""The split of texts into training texts and measured texts, which share no passage."""

from collections.abc import Sequence

from transformer_lens.model_bridge import TransformerBridge

from ..design.documents import unrelated_documents
from ..design.material import induction_sequences, template_sequences, text_sequences, text_tag
from ..design.sequences import TokenSequence, beginning, require_both_halves, token_list
from .settings import LearnedSettings


def measured_sequences(
    bridge: TransformerBridge, settings: LearnedSettings
) -> dict[str, list[TokenSequence]]:
    """The sequences to measure, by table.

    Raises `ValueError` if a half of a table, or of a source of texts, has no sequences.
    """
    found = {
        "induction": induction_sequences(bridge, settings.material),
        "templates": template_sequences(bridge, settings.material),
        "text": text_sequences(bridge, settings.material),
    }
    for table, sequences in found.items():
        require_both_halves(sequences, table)
    for source in settings.material.texts:  # each is a question of its own
        of_source = [text for text in found["text"] if text.tags == text_tag(source)]
        require_both_halves(of_source, source)
    return found


def training_texts(
    bridge: TransformerBridge, settings: LearnedSettings, measured: Sequence[TokenSequence]
) -> list[list[int]]:
    """The documents of the corpus that share no passage with a measured one, whole, after a BOS.

    They are not connected with one through other documents either, of the corpus or of a measured
    text.
    """
    clusters = {text.cluster for text in measured}
    return [
        [*beginning(bridge), *token_list(bridge, document.text)]
        for source, document in unrelated_documents(
            [settings.corpus, *settings.material.texts], clusters
        )
        if source == settings.corpus
    ]
