"""Texts that a model writes itself: drawn from its distribution, each by its own seed."""

import pytest
import torch

import lens_interventions as li
from tests.support.clean import left_as_found
from tests.support.tiny import shared_bridge


def test_a_text_is_the_same_whatever_is_written_beside_it():
    bridge = shared_bridge("llama")
    with left_as_found(bridge):
        several = list(li.sample_texts(bridge, 70, length=6, progress=False))
    (alone,) = li.sample_texts(bridge, 1, length=6, seed=66, progress=False)
    assert len(several) == 70
    assert torch.equal(several[66], alone)
    assert {len(text) for text in several} == {6}
    assert {int(text[0]) for text in several} == {bridge.tokenizer.bos_token_id}
    assert len({tuple(text.tolist()) for text in several}) > 60


def test_tokens_come_as_often_as_the_model_says():
    bridge = shared_bridge("llama")
    start = torch.tensor([[bridge.tokenizer.bos_token_id]])
    probabilities = bridge(start)[0, 0].softmax(-1)
    n = 2000
    second = torch.stack(list(li.sample_texts(bridge, n, length=2, progress=False)))[:, 1]
    counts = torch.bincount(second, minlength=len(probabilities))
    expected = n * probabilities
    chi_square = ((counts - expected) ** 2 / expected).sum()
    # A chi-square variable exceeds its mean by five standard deviations once in a million.
    degrees = len(probabilities) - 1
    assert chi_square < degrees + 5 * (2 * degrees) ** 0.5


def test_a_lens_is_fitted_to_them():
    bridge = shared_bridge("llama")
    texts = li.sample_texts(bridge, 20, length=24, progress=False)
    assert li.fit_affine_lens(bridge, texts, progress=False).settings["tokens"] == 18 * 23


def test_what_cannot_be_sampled_is_refused(monkeypatch):
    bridge = shared_bridge("llama")
    with pytest.raises(ValueError, match="length must be at least 2 tokens, got 1"):
        next(li.sample_texts(bridge, 1, length=1))
    monkeypatch.setattr(bridge, "tokenizer", None)
    with pytest.raises(ValueError, match="give texts of your own"):
        next(li.sample_texts(bridge, 1))
