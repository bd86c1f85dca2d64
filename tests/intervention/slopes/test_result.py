"""What a slope map knows of its cells, and the level of what it predicts."""

import dataclasses
import itertools

import pytest

import lens_interventions as li
from tests.support.tiny import random_tokens


@pytest.mark.parametrize("bridge", ["gpt2"], indirect=True)
def test_cells_name_their_patches(bridge):
    found = li.slope_map(
        bridge,
        [random_tokens(6)],
        sources=["current", "true", "final_guess"],
        modes=["correct", "interpolate"],
        embeddings=["W_U", "W_E"],
        max_length=8,
        progress=False,
    )
    for embedding, mode, source in itertools.product(
        found.embeddings, found.modes, ("current", "true")
    ):
        patch = found.patch(1, strength=0.3, source=source, mode=mode, embedding=embedding)
        assert patch == li.NextTokenPatch(
            layer=1,
            strength=0.3,
            source=source,
            mode=mode,
            embedding=embedding,
            scale="norm",
            first_position=1,
        )
    with pytest.raises(ValueError, match="known only after its run"):
        found.patch(1, strength=0.3, source="final_guess")


def test_a_prediction_has_the_level_that_was_asked_for(llama):
    texts = [random_tokens(8) for _ in range(12)]
    slopes = li.slope_map(llama, texts, layers=[1], max_length=8, progress=False)
    patch = slopes.patch(1, strength=0.1)
    curvature = li.curvature(llama, texts, patch, progress=False)
    wide, narrow = (
        slopes.predict(patch, curvature=curvature, level=level) for level in (0.95, 0.5)
    )
    for outer, inner in ((wide.slope, narrow.slope), (wide.curvature, narrow.curvature)):
        assert (outer.level, inner.level) == (0.95, 0.5)
        assert outer.estimate == inner.estimate
        assert outer.low < inner.low < inner.high < outer.high


@pytest.mark.parametrize("other", [{"seed": 5}, {"scale": "raw"}, {"gate": 1.0}], ids=str)
def test_a_map_predicts_only_what_it_was_made_with(llama, other):
    slopes = li.slope_map(llama, [random_tokens(8)], layers=[0], progress=False)
    patch = dataclasses.replace(slopes.patch(0, strength=0.1), **other)
    with pytest.raises(ValueError, match=f"made with {next(iter(other))}="):
        slopes.predict(patch)
