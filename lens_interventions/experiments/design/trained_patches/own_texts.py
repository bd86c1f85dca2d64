"""Texts that the model writes itself, whose predictions a training preserves."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ...._counter_random import SEEDS_APART
from ....intervention.generation.sample_texts import sample_texts
from ...engine.results import Tables
from ...engine.work_units import Unit, unit_kind
from .settings import TrainedPatchSettings

_TABLE = "own_texts"


def writing_stage(
    _bridge: TransformerBridge, settings: TrainedPatchSettings, _rows: Tables
) -> Sequence[Unit]:
    """The writing of all texts, if the settings ask for any.

    It is a unit because sampling need not give the same tokens on another day, when another product
    is the faster one.
    """
    if not settings.samples:
        return []
    length, seed = settings.options.window, settings.seed * SEEDS_APART
    asked = {"n": settings.samples, "length": length, "seed": seed}
    return [Unit(_TABLE, _TABLE, write_texts, asked)]


@unit_kind("texts that the model writes")
def write_texts(bridge: TransformerBridge, n: int, length: int, seed: int) -> pd.DataFrame:
    """A row for each token of `n` texts of `length` tokens, with the number of its text."""
    texts = sample_texts(bridge, n, length=length, seed=seed, progress=False)
    return pd.DataFrame(
        [
            {"text": number, "token": token}
            for number, text in enumerate(texts)
            for token in text.tolist()
        ]
    )


def own_windows(rows: Tables) -> list[dict[str, Any]]:
    """The texts as windows; none if the model wrote none."""
    if _TABLE not in rows:
        return []
    return [
        {"tokens": [int(token) for token in tokens]}
        for _, tokens in rows[_TABLE].groupby("text")["token"]
    ]
