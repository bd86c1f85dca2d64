"""The length that regression takes, put back along the direction that the logits see least."""

import numpy as np
import pytest
import torch

from lens_interventions.fitting.affine_fit import fit_affine_lens
from lens_interventions.fitting.ridge import RidgeMoments, RidgeSolution
from lens_interventions.fitting.shrinkage import full_length_bias, unread_direction
from lens_interventions.model.readout import readout
from tests.support.corpora import random_texts, residual_rows
from tests.support.tiny import shared_bridge


@pytest.mark.parametrize("arch", ["gpt2", "llama", "gemma2"])
def test_the_unread_direction_is_the_last_singular_vector_of_norm_and_unembedding(arch):
    bridge = shared_bridge(arch)
    norm = bridge.ln_final.original_component.weight
    scaled = (bridge.W_U.T * (1 + norm if arch == "gemma2" else norm)).detach().numpy()
    scaled -= scaled.mean(0)
    if arch == "gpt2":  # a LayerNorm takes out the mean, so a constant does not count
        scaled -= scaled.mean(1, keepdims=True)
    directions = np.linalg.svd(scaled)[2]
    expected = directions[-2 if arch == "gpt2" else -1]
    found = unread_direction(readout(bridge)).numpy()
    assert abs(found @ expected) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("arch", ["gpt2", "llama"])
def test_full_length_changes_biases_along_one_direction_until_outputs_are_long_enough(arch):
    bridge, texts = shared_bridge(arch), random_texts()
    plain = fit_affine_lens(bridge, texts, full_length=False, progress=False)
    lens = fit_affine_lens(bridge, texts, progress=False)
    assert torch.equal(lens.weight, plain.weight)
    direction = unread_direction(readout(bridge))
    added = lens.bias - plain.bias
    torch.testing.assert_close(added, torch.outer(added @ direction, direction), rtol=0, atol=1e-9)
    held_out = [text for i, text in enumerate(texts, 1) if i % 10 == 0]
    *streams, last = map(torch.tensor, residual_rows(bridge, held_out))
    for layer, stream in enumerate(streams):
        before, after = (
            float((each(stream, layer).square().sum(-1) / last.square().sum(-1)).mean())
            for each in (plain, lens)
        )
        assert before < 0.999, "nothing was missing, so nothing is tested"
        assert after == pytest.approx(1, abs=1e-9)


def test_outputs_that_are_too_long_already_keep_their_bias():
    held_out, n = RidgeMoments(1, 4, 4), 4
    rows = 2 * torch.eye(n, dtype=torch.float64)  # where the targets have length 1
    held_out.add(0, rows, torch.zeros_like(rows), torch.ones_like(rows[:, :1]))
    held_out.n = n
    solution = RidgeSolution(torch.zeros_like(rows), torch.full_like(rows[0], 0.1), 1.0)
    assert full_length_bias(held_out, 0, solution, rows[0] / 2) is solution.bias
