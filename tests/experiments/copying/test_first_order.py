"""The first-order map: slopes of weak patches, which choose the layers of the grid."""

from dataclasses import asdict

import pandas as pd
import pytest
import torch

from lens_interventions import NextTokenPatch, teacher_forced_log_probs
from lens_interventions.experiments.copying.first_order import WORD, best_layers, measure_map
from lens_interventions.experiments.design.conditions import PatchSettings
from tests.support.exact import float64_softmax
from tests.support.scored_sequences import text
from tests.support.tiny import shared_bridge


@pytest.mark.parametrize(
    "settings",
    [
        PatchSettings(),
        PatchSettings(scale="raw", embedding="W_U"),
        # Two positions of the longer text surprise the output as much, and none of the other.
        PatchSettings(gate=7.0, gate_on="output"),
    ],
)
def test_slopes_are_those_of_the_runs_patch_at_the_words_at_the_end(
    settings: PatchSettings,
) -> None:
    bridge = shared_bridge("gpt2")
    # The shorter text is padded, and its word is one token.
    texts = [text(3, [0, 9, 8, 7, 60, 61], copied=2), text(5, [0, 30, 31, 32], copied=1)]
    with float64_softmax():
        rows = measure_map(
            bridge,
            [item.values() for item in texts],
            scopes=[WORD, "all"],
            sources=["true", "current"],
            patch=asdict(settings),
        )
        small = 1e-5
        for item in texts:
            for source in ("true", "current"):
                patches = [
                    NextTokenPatch(
                        layer=1,
                        strength=strength,
                        mode="add",
                        scale=settings.scale,
                        embedding=settings.embedding,
                        gate=settings.gate,
                        gate_on=settings.gate_on,
                        source=source,
                        positions=range(1, 6),
                    )
                    for strength in (small, -small)
                ]
                up, down = teacher_forced_log_probs(bridge, torch.tensor(item.tokens), patches)
                change = (down - up)[0, -item.copied :].sum() / (2 * small)
                found = rows.query(
                    "sequence == @item.number and scope == @WORD and source == @source "
                    "and layer == 1"
                )
                # Not to the last digits: differences are central. A closed gate leaves rounding.
                assert found["total"].item() == pytest.approx(float(change), rel=1e-4, abs=1e-9)
                assert found["count"].item() == item.copied


def test_layers_are_those_of_the_lowest_slope_and_of_the_largest_lead() -> None:
    slopes = {
        "true": [-1.0, -3.0, -2.0, 5.0],
        "current": [-1.0, -4.0, -2.0, 8.0],
        "random": [-0.9, -1.0, -1.5, 6.0],
    }
    rows = pd.DataFrame(
        [
            {"source": source, "layer": layer, "total": 2 * slope, "count": 2}
            for source, values in slopes.items()
            for layer, slope in enumerate(values)
        ]
    )
    # Leads over the lowest control: 0, +1, 0, -1.
    assert best_layers(rows, 1) == [1, 3]
    assert best_layers(rows, 2) == [0, 1, 2, 3]
