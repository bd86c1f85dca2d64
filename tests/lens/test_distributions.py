"""Statistics of distributions against numpy and scipy, on ordinary and on degenerate logits."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lens_interventions.lens.distributions import (
    expectation,
    js_divergence,
    normalizer_and_entropy,
    normalizer_entropy_and_ranks,
    ranks,
    top_k,
)
from tests.support import reference

# Few distinct values, so that ties are common; -inf is a token that cannot be.
_VALUES = st.one_of(st.sampled_from([-3.0, 0.0, 2.0, -np.inf]), st.floats(-50, 50, width=32))


@st.composite
def _logits(draw: st.DrawFn, n: int = 1, values: st.SearchStrategy = _VALUES) -> list[np.ndarray]:
    rows, d_vocab = draw(st.integers(1, 3)), draw(st.integers(1, 200))
    arrays = [draw(hnp.arrays(np.float64, (rows, d_vocab), elements=values)) for _ in range(n)]
    for array in arrays:  # a distribution needs one token that can be
        array[:, 0] = np.where(np.isinf(array).all(-1), 0.0, array[:, 0])
    return arrays


@given(_logits(), st.data())
def test_ranks_count_strictly_larger_logits(logits, data):
    (z,) = logits
    ids = data.draw(hnp.arrays(np.int64, (len(z), 2), elements=st.integers(0, z.shape[1] - 1)))
    ours = ranks(torch.tensor(z), torch.tensor(ids)).numpy()
    expected = np.stack([reference.ranks(z, ids[:, i]) for i in range(2)], -1)
    np.testing.assert_array_equal(ours, expected)


@given(_logits(), st.data())
def test_top_k_is_a_full_sort(logits, data):
    (z,) = logits
    k = data.draw(st.integers(1, min(5, z.shape[1])))
    ids, values = top_k(torch.tensor(z), k)
    np.testing.assert_array_equal(values.numpy(), -np.sort(-z, axis=-1)[:, :k])
    np.testing.assert_array_equal(np.take_along_axis(z, ids.numpy(), -1), values.numpy())
    assert all(len(set(row)) == k for row in ids.tolist())


@pytest.mark.parametrize("d_vocab", [1280, 1283, 49152])
def test_top_k_of_a_large_vocabulary_is_torchs(d_vocab):
    # Distinct values, wherever the largest lie: in the strides, or in the rest after them.
    z = torch.randperm(5 * d_vocab).view(5, d_vocab).double()
    z[0, -1] = z[1, 0] = 1e9
    values, ids = z.topk(5)
    ours = top_k(z, 5)
    torch.testing.assert_close(ours, (ids, values), rtol=0, atol=0)


@given(_logits(values=st.floats(-50, 50)))
def test_normalizer_and_entropy_of_finite_logits(logits):
    (z,) = logits
    tensor = torch.tensor(z)
    scratch = torch.empty_like(tensor)
    log_normalizer, nats = normalizer_and_entropy(tensor, tensor.argmax(-1), scratch)
    # A probability near 1 is rounded by 1e-16, and so is its logarithm, however small.
    np.testing.assert_allclose(log_normalizer, torch.logsumexp(tensor, -1), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(nats, reference.entropies(z), atol=1e-12)
    np.testing.assert_allclose(scratch, scipy.special.softmax(z, axis=-1), rtol=1e-12)


@given(_logits(), st.integers(1, 4), st.data())
def test_a_few_rows_at_a_time_have_the_statistics_of_all(logits, few, data):
    (z,) = logits
    ids = data.draw(hnp.arrays(np.int64, (len(z), 2), elements=st.integers(0, z.shape[1] - 1)))
    tensor = torch.tensor(z)
    scratch = torch.empty(2 * few, z.shape[1], dtype=torch.float64)
    log_normalizer, nats, counts = normalizer_entropy_and_ranks(
        tensor, tensor.argmax(-1), torch.tensor(ids), scratch
    )
    np.testing.assert_allclose(log_normalizer, torch.logsumexp(tensor, -1), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(
        nats, scipy.stats.entropy(scipy.special.softmax(z, -1), axis=-1), atol=1e-12
    )
    expected = np.stack([reference.ranks(z, ids[:, i]) for i in range(2)], -1)
    np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize("offset", [0, 256, -1024])
def test_a_constant_in_all_logits_changes_no_entropy_in_float32(offset):
    """In float32 a softmax does not quite sum to 1, and 256 times the rest would be 1e-3."""
    drawn = 200 * torch.randn(4, 50_000, generator=torch.Generator().manual_seed(0))
    z = drawn.round() / 64 + offset  # exact in float32
    expected = reference.entropies(z.double().numpy())
    ids = torch.zeros(len(z), 0, dtype=torch.long)
    scratch = torch.empty(6, z.shape[1])
    # Sums of 50,000 terms, whose rounding grows with the offset.
    atol = 2e-5 + 5e-7 * abs(offset)
    _, nats = normalizer_and_entropy(z, z.argmax(-1))
    np.testing.assert_allclose(nats, expected, atol=atol)
    _, nats, _ = normalizer_entropy_and_ranks(z, z.argmax(-1), ids, scratch)
    np.testing.assert_allclose(nats, expected, atol=atol)


@pytest.mark.parametrize("mask", [-torch.inf, torch.finfo().min])
def test_tokens_that_a_model_masks_have_no_part_in_any_statistic(mask):
    z = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    alone = z.double().numpy()
    masked = torch.cat([z, torch.full((3, 40), mask)], dim=-1)
    ids, scratch = torch.zeros(3, 1, dtype=torch.long), torch.empty(4, 90)
    for log_normalizer, nats, *_ in (
        normalizer_and_entropy(masked, masked.argmax(-1)),
        normalizer_entropy_and_ranks(masked, masked.argmax(-1), ids, scratch),
    ):
        # Sums of 50 terms in float32.
        np.testing.assert_allclose(log_normalizer, scipy.special.logsumexp(alone, -1), rtol=1e-6)
        np.testing.assert_allclose(nats, reference.entropies(alone), rtol=2e-6)


@given(_logits(n=2))
def test_js_divergence(logits):
    p, q = logits
    # scipy takes a square root of a difference, which loses half of the digits near zero.
    ours = js_divergence(torch.tensor(p), torch.tensor(q)).numpy()
    np.testing.assert_allclose(ours, reference.js(p, q), rtol=1e-9, atol=1e-12)
    assert (ours <= np.log(2) + 1e-12).all()


def test_js_divergence_of_the_smallest_probabilities_is_finite():
    """Where the mean of two of them rounds to 0."""
    logits = 30 * torch.randn(2, 4, 2000, generator=torch.Generator().manual_seed(0))
    logits[0, 0, 0] = logits[0, 0].max() - 103.28
    p, q = logits
    expected = reference.js(p.double().numpy(), q.double().numpy())
    # Sums of 2,000 terms in float32.
    np.testing.assert_allclose(js_divergence(p, q).numpy(), expected, rtol=1e-4)


def test_a_vocabulary_of_one_token_has_nothing_to_say():
    z = torch.tensor([[3.0]], dtype=torch.float64)
    assert js_divergence(z, z).item() == 0
    assert ranks(z, torch.tensor([[0]])).item() == 0
    assert top_k(z, 1)[0].item() == 0


def test_expectation_keeps_leading_axes():
    w, v = torch.rand(2, 3, 7, dtype=torch.float64), torch.randn(2, 3, 7, dtype=torch.float64)
    torch.testing.assert_close(expectation(w, v), (w * v).sum(-1), rtol=1e-12, atol=1e-12)


def test_what_has_no_weight_has_no_part_in_an_expectation():
    w = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
    v = torch.tensor([[-torch.inf, 3.0, 4.0], [1.0, 3.0, torch.nan], [-torch.inf, 0.0, -torch.inf]])
    assert expectation(w, v.double()).tolist()[::2] == [11.0, -torch.inf]
    assert expectation(w, v.double())[1].isnan()


@pytest.mark.parametrize("k", [0, 8])
def test_top_k_refuses_what_the_vocabulary_does_not_hold(k):
    with pytest.raises(ValueError, match="between 1 and the vocabulary size 7"):
        top_k(torch.zeros(2, 7), k)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_makes_no_divergence_negative(dtype):
    p = 10 * torch.randn(500, 50, dtype=dtype)
    found = js_divergence(p, p + 1e-4 * torch.randn_like(p))
    assert (found >= 0).all()


def test_rounding_makes_no_entropy_negative():
    """Of a nearly certain token, in float32, with a constant in all logits."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(500, 100, generator=generator) - 300.1
    z[:, 0] += 60 * torch.rand(500, generator=generator)
    likeliest, none = z.argmax(-1), torch.zeros(500, 0, dtype=torch.long)
    assert (normalizer_and_entropy(z, likeliest)[1] >= 0).all()
    scratch = torch.empty(6, 100)
    assert (normalizer_entropy_and_ranks(z, likeliest, none, scratch)[1] >= 0).all()
