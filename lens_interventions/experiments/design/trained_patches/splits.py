"""The windows of text to train on, to choose the best step by, and to measure on."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformer_lens.model_bridge import TransformerBridge

from ...._counter_random import random_bits
from ....materials.corpora import read_documents
from ....materials.shingles import groups
from ...engine.results import Tables
from ..documents import cluster_of
from ..material import CopyingMaterial, induction_sequences
from ..sequences import REPORT, beginning, token_list
from ..setting_checks import require_room
from .own_texts import own_windows
from .settings import TrainedPatchSettings

TRAINING, CHOOSING, MEASURED, PRESERVED = "training", "choosing", "measured", "preserved"

# Of ten groups of documents, six are trained on and three are measured.
_PARTS = (TRAINING,) * 6 + (CHOOSING,) + (MEASURED,) * 3


def windows_by_part(
    bridge: TransformerBridge, settings: TrainedPatchSettings
) -> dict[str, list[dict[str, Any]]]:
    """Windows of equal length, each a BOS and a piece of one document, with its `cluster`.

    The first windows of all documents come before the second ones, so even a few windows come from
    many documents. Documents that share a passage of 13 words are one cluster, named after the
    first of them, and in one part.

    Raises `ValueError` if a part has no window, or the model cannot read the copies at once.
    """
    require_room(bridge, copy_length=len(beginning(bridge)) + 2 * settings.copy_length)
    documents = [
        (source, document) for source in settings.texts for document in read_documents(source)
    ]
    group_of = groups([document for _, document in documents])
    part_of = random_bits(settings.seed, torch.tensor(group_of)).numpy() % len(_PARTS)
    clusters = [cluster_of(*documents[first]) for first in group_of]
    wanted = {
        TRAINING: (settings.windows[0], None),
        CHOOSING: (settings.options.held_out_windows, None),
        MEASURED: (settings.windows[1], settings.per_document),
    }
    found = {}
    for part, (count, most) in wanted.items():
        of_part = [
            (document.text, cluster)
            for (_, document), cluster, number in zip(documents, clusters, part_of, strict=True)
            if _PARTS[number] == part
        ]
        found[part] = _windows(bridge, settings, of_part, count, most)
        if not found[part]:
            raise ValueError(f"no text is left for the {part} windows: give more, or shorter ones")
    return found


def to_train(
    windows: Mapping[str, list[dict[str, Any]]], rows: Tables
) -> dict[str, list[dict[str, Any]]]:
    """The windows that a training needs: to train on, to choose the best step by, to preserve."""
    found = {part: windows[part] for part in (TRAINING, CHOOSING)}
    own = own_windows(rows)
    return {**found, PRESERVED: own} if own else found


def to_measure(
    bridge: TransformerBridge,
    settings: TrainedPatchSettings,
    windows: Mapping[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    """The arguments of `measured_losses` that all trainings of an experiment share."""
    return {
        "windows": windows[MEASURED],
        "copies": second_copies(bridge, settings),
        "batch": settings.batch,
    }


def second_copies(bridge: TransformerBridge, settings: TrainedPatchSettings) -> list[list[int]]:
    """Sequences of random tokens, which are repeated once, after a BOS."""
    material = CopyingMaterial(
        induction_sequences=(1, settings.copies),
        induction_length=settings.copy_length,
        seed=settings.seed,
    )
    sequences = induction_sequences(bridge, material)
    return [list(text.tokens) for text in sequences if text.half == REPORT]


def _windows(
    bridge: TransformerBridge,
    settings: TrainedPatchSettings,
    documents: Sequence[tuple[str, str]],
    count: int,
    most: int | None,
) -> list[dict[str, Any]]:
    bos = beginning(bridge)
    size = settings.options.window - len(bos)
    rng = np.random.default_rng([settings.seed, 4])
    ranked = []
    for place in rng.permutation(len(documents)):
        text, cluster = documents[place]
        tokens = token_list(bridge, text)
        for turn, start in enumerate(range(0, len(tokens) - size + 1, size)[:most]):
            window = [*bos, *tokens[start : start + size]]
            ranked.append((turn, {"cluster": cluster, "tokens": window}))
    ranked.sort(key=lambda item: item[0])
    return [window for _, window in ranked[:count]]
