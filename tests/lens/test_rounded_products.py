"""Divergences where products of float32 round their factors, as on a GPU if the user allows it."""

import pytest
import torch
from torch.nn import functional

import lens_interventions as li
from lens_interventions.model import product_trials
from tests.support.tiny import random_tokens, tiny_bridge


@pytest.fixture
def rounding(monkeypatch):
    """Ten bits of mantissa, which TensorFloat-32 has."""
    linear, mm = functional.linear, torch.mm

    def rounded(factor):
        return (factor.contiguous().view(torch.int32) + 0x1000 & ~0x1FFF).view(torch.float32)

    monkeypatch.setattr(product_trials, "_is_suited", lambda _weight: False)
    monkeypatch.setattr(
        functional, "linear", lambda x, w, b=None: linear(rounded(x), rounded(w), b)
    )
    monkeypatch.setattr(torch, "mm", lambda x, w, out=None: mm(rounded(x), rounded(w), out=out))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("rounding")
def test_the_output_does_not_diverge_from_itself():
    bridge = tiny_bridge("llama", dtype=torch.float32)
    read = li.logit_lens(bridge, random_tokens(4, 12))
    # Sums of 112 terms in float32. With factors that are rounded in one of two products it is 5e-4.
    assert read.kl_final[-1].max() < 1e-5
