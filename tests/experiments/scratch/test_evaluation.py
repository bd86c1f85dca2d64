"""What is measured of a network, by the library on the bridge and by loops over places."""

from dataclasses import replace

import pytest
import torch

import lens_interventions as li
from lens_interventions.experiments.design.small_networks.corpus import corpus_of
from lens_interventions.experiments.design.text_scopes import AS_TRAINED, SECOND, TAKEN_AWAY
from lens_interventions.experiments.scratch.arms import ScratchTraining
from lens_interventions.experiments.scratch.evaluation import (
    FALSIFIED,
    PREFIX_MATCHING,
    SAME_TOKEN,
    measure,
)
from lens_interventions.experiments.scratch.material import Material, material_of
from lens_interventions.intervention.learned_write import LearnedWrite
from tests.support.small_scratch import SHAPE, SMALL, small_model, small_network

TRAINING = ScratchTraining(SHAPE.n_layers, 1, "true", seed=5)
HALF = 8


@pytest.fixture(scope="module")
def material() -> Material:
    generator = torch.Generator().manual_seed(1)
    windows = torch.randint(4, SHAPE.d_vocab, (3, 2 * HALF), generator=generator)
    part = torch.randint(4, SHAPE.d_vocab, (4, HALF), generator=generator)
    scopes = {"all": torch.ones(3, 2 * HALF - 1, dtype=torch.bool)}
    return Material(windows, torch.arange(3), scopes, torch.cat([part, part], dim=1))


def test_early_and_late_are_the_first_and_the_last_quarter_of_the_predictions() -> None:
    scopes = material_of(corpus_of(SMALL.corpus), surprising=3.0, n_copies=2, seed=0).scopes
    # 47 predictions of windows of 48 tokens.
    for name, expected in (("early", range(11)), ("late", range(36, 47))):
        assert scopes[name].nonzero()[:, 1].unique().tolist() == list(expected)
        assert (scopes[name].sum(1) == 11).all()


def test_every_text_is_measured_under_its_condition(material: Material) -> None:
    network = small_network(1)
    records = measure(network, TRAINING, material, 3, final=True)
    model = small_model(network, "true")
    assert model.patch is not None
    write = model.patch.mode
    assert isinstance(write, LearnedWrite)
    patches = {
        AS_TRAINED: model.patch,
        TAKEN_AWAY: None,
        FALSIFIED: write.for_source("shuffled").patch(seed=model.patch.seed),
    }
    for condition, patch in patches.items():
        for scope, texts, first in (
            ("all", material.windows, 0),
            (SECOND, material.copies, HALF),
        ):
            nats = -li.teacher_forced_log_probs(
                model.bridge, texts, patch, text_seeds=torch.arange(len(texts))
            )
            found = [
                record["total"]
                for record in records
                if (record["condition"], record["scope"]) == (condition, scope)
            ]
            expected = nats[:, first:].sum(1).tolist()
            assert found == pytest.approx(expected, abs=1e-9), (condition, scope)


def test_the_scores_of_heads_are_attention_to_the_earlier_place(material: Material) -> None:
    network = small_network(1)
    training = replace(TRAINING, arm="none")
    records = measure(network, training, material, 3, final=False)
    bridge = small_model(network, "none").bridge
    _, cache = bridge.run_with_cache(material.copies)
    for scope, behind in ((PREFIX_MATCHING, HALF - 1), (SAME_TOKEN, HALF)):
        for block in range(SHAPE.n_layers):
            pattern = cache[f"blocks.{block}.attn.hook_pattern"]
            for head in range(SHAPE.n_heads):
                attention = [
                    float(pattern[text, head, place, place - behind])
                    for text in range(4)
                    for place in range(HALF, 2 * HALF)
                ]
                (found,) = [
                    record["total"]
                    for record in records
                    if (record["scope"], record["row"], record["cluster"]) == (scope, block, head)
                ]
                assert found == pytest.approx(sum(attention) / len(attention), abs=1e-9)
