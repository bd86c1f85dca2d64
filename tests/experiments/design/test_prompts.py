"""Prompts shared out between the halves."""

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from lens_interventions.experiments.design.prompts import prompt_items
from tests.support.small_loops import SETTINGS


def test_halves_are_even_and_share_registers(llama: TransformerBridge) -> None:
    items = prompt_items(llama, 72, SETTINGS.seed)
    halves = pd.DataFrame(items).groupby(["register", "half"]).size().unstack()
    assert (halves == 2).all(axis=None)
