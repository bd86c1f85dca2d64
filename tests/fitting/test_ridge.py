"""The choice of the ridge, against explicit regressions on data that are held as rows."""

import numpy as np
import pytest
import torch

from lens_interventions.fitting.ridge import RidgeMoments

# Relative to a coordinate's mean square, as documented.
TRIED = [10.0**exponent for exponent in range(-8, 2)]


def noisy_rows(rng, n_rows, truth, noise):
    """Inputs of very different sizes, targets with noise, and a scale for each row."""
    x = rng.normal(size=(n_rows, len(truth))) * np.logspace(-2, 2, len(truth)) + 0.5
    y = 1 + x @ truth + noise * rng.normal(size=(n_rows, truth.shape[1]))
    return x, y, rng.uniform(0.5, 2, (n_rows, 1))


def moments_of(x, y, scale):
    moments = RidgeMoments(1, x.shape[1], y.shape[1])
    moments.add(0, *(torch.from_numpy(each) for each in (x, y, scale)))
    return moments


@pytest.mark.parametrize("noise", [0.01, 0.3, 1.0, 3.0, 20.0])
def test_the_ridge_is_the_one_with_the_least_squared_error_on_other_rows(noise):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(8, 3)) / np.logspace(-2, 2, 8)[:, None]
    fitted, other = noisy_rows(rng, 12, truth, noise), noisy_rows(rng, 60, truth, noise)
    found = moments_of(*fitted).solve(0, moments_of(*other))

    (inputs, targets), (other_inputs, other_targets) = (
        (np.hstack([x, np.ones_like(scale)]) * scale, y * scale) for x, y, scale in (fitted, other)
    )
    size = np.sqrt((inputs**2).sum(0))
    standard = inputs / size
    solutions, errors = [], []
    for ridge in TRIED:
        penalized = standard.T @ standard + ridge * np.eye(len(size))
        solutions.append(np.linalg.solve(penalized, standard.T @ targets) / size[:, None])
        errors.append(((other_targets - other_inputs @ solutions[-1]) ** 2).sum())
    best = int(np.argmin(errors))
    assert found.ridge == TRIED[best]
    # Both are in float64; the least ridge leaves systems of a condition of up to 1e8.
    np.testing.assert_allclose(found.weight, solutions[best][:-1], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.bias, solutions[best][-1], rtol=1e-6, atol=1e-9)
