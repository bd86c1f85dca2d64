"""Texts that a model writes itself: drawn from its distribution, each by its own seed."""

import pytest
import torch

import lens_interventions as li
from tests.support.clean import left_as_found
from tests.support.tiny import shared_bridge, tiny_bridge


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 1}, "length must be from 2 to the model's context 128, got 1"),
        ({"length": 129}, "length must be from 2 to the model's context 128, got 129"),
        ({"n_texts": -3}, "n_texts must be at least 1, got -3"),
    ],
)
def test_what_cannot_be_sampled_is_refused_before_the_first_text(options, message):
    with pytest.raises(ValueError, match=message):
        li.sample_texts(shared_bridge("llama"), **{"n_texts": 1} | options)


def test_a_model_that_cannot_write_is_refused_before_the_first_text(monkeypatch):
    bridge = tiny_bridge("llama")
    monkeypatch.setattr(bridge, "tokenizer", None)
    with pytest.raises(ValueError, match="give texts of your own"):
        li.sample_texts(bridge, 1)
    bridge.original_model.train()
    with pytest.raises(ValueError, match=r"call bridge\.eval\(\)"):
        li.sample_texts(bridge, 1)
