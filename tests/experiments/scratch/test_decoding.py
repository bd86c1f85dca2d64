"""Free decoding of trained networks, by `generate` and by counting."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

import lens_interventions as li
from lens_interventions.experiments.scratch.arms import ScratchTraining
from lens_interventions.experiments.scratch.decoding import (
    COPIED,
    DECODED,
    LOOPED,
    REPEATED,
    decoded,
    decoded_rows,
)
from lens_interventions.experiments.scratch.material import Material
from tests.support.small_scratch import SHAPE, small_model, small_network

TRAINING = ScratchTraining(SHAPE.n_layers, 1, "true", seed=5)


def random_ids(*shape):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randint(4, SHAPE.d_vocab, shape, generator=generator)


@pytest.mark.parametrize("arm", ["none", "true", "current", "previous", "shuffled"])
def test_a_continuation_is_that_of_generate(arm):
    network, training = small_network(1), replace(TRAINING, arm=arm)
    prompts = random_ids(3, 6)
    found = decoded(network, training, prompts, 8)
    model = small_model(network, arm)
    expected = li.generate(
        model.bridge,
        prompts,
        model.patch,
        max_new_tokens=8,
        do_sample=False,
        stop_at_eos=False,
        text_seeds=torch.arange(3),
    )
    assert found.tolist() == expected.tokens.tolist()
    if arm == "true":
        unwritten = decoded(network, replace(TRAINING, arm="none"), prompts, 8)
        assert found.tolist() != unwritten.tolist()


def always(token):
    """A network that only ever says one token, with room for a loop."""
    network = small_network(1, shape=replace(SHAPE, context=36))
    with torch.no_grad():
        transformer = network.model.transformer
        transformer.ln_f.weight.zero_()
        transformer.ln_f.bias.copy_(100 * network.model.lm_head.weight[token])
    return network


def test_loops_repeats_and_right_tokens_are_counted():
    part = 8 + random_ids(1, 18) % 50
    part[0, 15:] = 7  # the network says 7, and is right about these alone
    windows = random_ids(4, 2 * 18)
    material = Material(windows, torch.tensor([2, 2, 3, 9]), {}, torch.cat([part, part], dim=1))
    rows = pd.DataFrame(decoded_rows(always(7), TRAINING, material, 3))
    assert set(rows["scope"]) == set(DECODED)
    by_scope = dict(list(rows.groupby("scope")))
    assert by_scope[LOOPED]["cluster"].tolist() == [2, 2, 3]
    assert by_scope[LOOPED]["total"].tolist() == [1, 1, 1]
    # Of 18 tokens there are 15 4-grams, all alike.
    assert by_scope[REPEATED]["total"].tolist() == pytest.approx([14 / 15] * 3)
    # Four of the copy's tokens are given, and three of the others are 7.
    assert by_scope[COPIED][["total", "count"]].to_numpy().tolist() == [[3, 14]]
