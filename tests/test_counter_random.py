"""Randomness without a state: draws have their distribution, and depend on their place alone."""

import numpy as np
import pytest
import torch

from lens_interventions._counter_random import random_bits, random_integers, random_normal


def test_draws_are_uniform_and_of_their_place_alone():
    place = torch.arange(20_000)
    drawn = random_integers(10, 3, place)
    # Ten standard deviations of a count of 2,000.
    assert (drawn.bincount(minlength=10) - 2000).abs().max() < 10 * 2000**0.5
    assert torch.equal(drawn[500:510], random_integers(10, 3, place[500:510]))
    assert (drawn == random_integers(10, 4, place)).double().mean() < 0.12
    twice = random_integers(10, 3, place[:, None], torch.arange(2))
    assert (twice[:, 0] == twice[:, 1]).double().mean() < 0.12


@pytest.mark.parametrize("seed", [3, -3, 2**62])
def test_a_seed_of_numpy_is_a_seed(seed):
    place = torch.arange(5)
    assert torch.equal(random_bits(np.int64(seed), place), random_bits(seed, place))


def test_normal_draws_have_the_moments_of_a_normal():
    drawn = random_normal(500, 0, torch.arange(400))
    # 200,000 draws: standard errors 0.0022, 0.0032 and 0.022.
    assert abs(drawn.mean()) < 0.01
    assert abs(drawn.var() - 1) < 0.015
    assert abs((drawn**4).mean() - 3) < 0.1
