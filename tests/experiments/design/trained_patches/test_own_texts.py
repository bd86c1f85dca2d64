"""Texts that the model writes to be preserved."""

from dataclasses import replace

import pytest

from lens_interventions.experiments.design.trained_patches.own_texts import (
    own_windows,
    writing_stage,
)
from tests.support.small_increment import SMALL
from tests.support.tiny import tiny_bridge


@pytest.mark.usefixtures("without_gradients")
def test_runs_with_other_seeds_preserve_other_texts() -> None:
    bridge, texts = tiny_bridge("llama"), []
    options = replace(SMALL.options, change_penalty=1.0)
    for seed in (0, 1):
        (unit,) = writing_stage(bridge, replace(SMALL, samples=10, seed=seed, options=options), {})
        rows = {unit.table: unit.measure(bridge, **unit.parameters)}
        texts += [tuple(window["tokens"]) for window in own_windows(rows)]
    assert len(texts) == len({*texts}) == 20
