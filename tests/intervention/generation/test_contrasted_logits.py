"""The rules of DoLa and SLED on logits, against the formulas token by token."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lens_interventions.intervention.generation.contrasted_logits import dola, sled
from tests.support import reference_layer_contrast as reference


def rows_of(rule: reference.Rule, last: Tensor, early: Tensor) -> np.ndarray:
    """The reference on each row alone."""
    return np.stack(
        [
            rule(last[row].double().numpy(), early[:, row].double().numpy())
            for row in range(len(last))
        ]
    )


@given(st.integers(0, 10**6), st.sampled_from([0.3, 2.0, 8.0]), st.integers(1, 4))
def test_every_row_is_by_the_formula(seed, spread, n_layers):
    generator = torch.Generator().manual_seed(seed)
    last, *early = spread * torch.randn(
        n_layers + 1, 3, 40, generator=generator, dtype=torch.float64
    )
    early = torch.stack(early)
    np.testing.assert_allclose(
        dola(last, early, alpha=0.1).numpy(), rows_of(reference.dola, last, early), atol=1e-9
    )
    np.testing.assert_allclose(
        sled(last, early, rate=2.0, scale=10).numpy(),
        rows_of(reference.sled, last, early),
        atol=1e-9,
    )


def test_rows_may_choose_different_layers():
    last = torch.tensor([[3.0, 0, 0, 0], [0, 0, 0, 3.0]])
    same, far = torch.tensor([[2.0, 0, 0, 0]]), torch.tensor([[0, 2.0, 0, 0]])
    early = torch.stack([torch.cat([same, far]), torch.cat([far, far.roll(2, 1) / 2])])
    found = dola(last, early, alpha=0.01)
    expected = last.log_softmax(-1) - torch.cat([far, far]).log_softmax(-1)
    torch.testing.assert_close(found, expected)


def test_tokens_that_the_head_excludes_are_cut_off_and_have_no_part():
    last, *early = torch.randn(3, 2, 20, dtype=torch.float64)
    early = torch.stack(early)
    barred = [3, 11]
    for logits in (last, early):
        logits[..., barred] = -torch.inf
    possible = [token for token in range(20) if token not in barred]
    for rule in (lambda *z: dola(*z, alpha=1e-9), lambda *z: sled(*z, rate=2.0, scale=10)):
        found = rule(last, early)
        assert found[:, barred].isneginf().all()
        torch.testing.assert_close(
            found[:, possible], rule(last[:, possible], early[..., possible]), rtol=0, atol=1e-12
        )


def test_a_layer_that_is_nearly_certain_is_not_lost_in_rounding():
    """In float32, at a probability from which rounding leaves little to 1."""
    last, early = torch.randn(2, 50), torch.randn(2, 2, 50)
    early[0, :, 7] += 14
    last[:, 7] += 9
    found = sled(last, early, rate=2.0, scale=10).numpy()
    np.testing.assert_allclose(found, rows_of(reference.sled, last, early), atol=1e-4)


@pytest.mark.parametrize("scale", [1, 5])
def test_layers_like_the_last_leave_their_order_to_the_last(scale):
    last = torch.randn(2, 30, dtype=torch.float64)
    found = sled(last, torch.stack([last, last]), rate=2.0, scale=scale)
    # No layer points anywhere, so that every kept token is lowered by its own probability.
    top, ids = last.topk(scale)
    expected = top - 2.0 * last.softmax(-1).gather(-1, ids)
    torch.testing.assert_close(found.gather(-1, ids), expected)
    assert (found.isfinite().sum(-1) == scale).all()


def test_no_more_tokens_are_kept_than_there_are():
    last, early = torch.randn(2, 6, dtype=torch.float64), torch.randn(1, 2, 6, dtype=torch.float64)
    every = sled(last, early, rate=2.0, scale=6)
    torch.testing.assert_close(sled(last, early, rate=2.0, scale=100), every, rtol=0, atol=0)


def test_the_likeliest_token_is_always_plausible():
    last, early = torch.randn(3, 6, dtype=torch.float64), torch.randn(1, 3, 6, dtype=torch.float64)
    kept = dola(last, early, alpha=1.0).isfinite()
    assert torch.equal(kept.nonzero()[:, 1], last.argmax(-1))
