"""The loss of patched texts: against teacher forcing, against finite differences, in memory."""

import dataclasses

import pytest
import torch
from torch import nn

import lens_interventions as li
from lens_interventions.intervention.known_text import KnownText
from lens_interventions.intervention.training import loss
from lens_interventions.intervention.training.loss import next_token_nats, patched_losses
from lens_interventions.model.gradients import frozen
from lens_interventions.model.readout import Readout, readout
from lens_interventions.model.tokens import token_batch
from tests.intervention.test_learned_write import random_write
from tests.support.small_training import (
    SMALL,
    random_texts,
    tensors,
    train,
)
from tests.support.tiny import random_tokens, shared_bridge, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact")


@torch.no_grad()
@pytest.mark.parametrize("arch", ["gpt2", "llama", "gemma2"])
def test_it_is_that_of_teacher_forcing(arch):
    bridge = shared_bridge(arch)
    patch = random_write(bridge, layers=(0, 2), gate=True, source="random").patch()
    texts, seeds = random_texts(4), torch.arange(4)
    batch = token_batch(bridge, texts)
    text = KnownText.from_batch(batch, text_seeds=seeds)
    resid = bridge(batch.tokens, stop_at_layer=0)
    found, _ = patched_losses(bridge, patch.bind(bridge), resid, text)
    log_probs = li.teacher_forced_log_probs(bridge, texts, patch, text_seeds=seeds)
    torch.testing.assert_close(found, -log_probs.nansum(-1), rtol=0, atol=1e-9)


# Layer norms stay in float64, RMS norms round to float32: too coarse for differences of 1e-5.
@pytest.mark.parametrize("arch", ["gpt2", "gpt_neox"])
@pytest.mark.parametrize("full", [False, True])
def test_its_gradient_is_that_of_finite_differences(monkeypatch, arch, full):
    """Of every tensor, over texts of several lengths, two layers and many chunks of logits."""
    monkeypatch.setattr(loss, "LOGIT_ROWS", 7)
    bridge = shared_bridge(arch)
    write = random_write(bridge, layers=(1, 2), full=full, gate=True)
    leaves = {name: leaf for name, leaf in tensors(write).items() if leaf is not None}
    batch = token_batch(bridge, random_texts(3))
    text = KnownText.from_batch(batch)
    with torch.no_grad():
        resid = bridge(batch.tokens, stop_at_layer=1)

    def nats(values, backward=None):
        patch = dataclasses.replace(write, **values).patch()
        return patched_losses(bridge, patch.bind(bridge), resid, text, backward=backward)[0]

    for leaf in leaves.values():
        leaf.requires_grad_()
    with frozen(bridge):
        nats(leaves, backward=0.25)
    assert all(parameter.grad is None for parameter in bridge.original_model.parameters())
    for name, leaf in leaves.items():
        for direction in torch.randn(2, *leaf.shape).double():
            step = 1e-5 * direction
            up, down = (
                nats({**leaves, name: leaf.detach() + sign * step}).sum() for sign in (1, -1)
            )
            change = 0.25 * (up - down) / 2e-5
            # Differences of a loss of 100 nats are good to 1e-8 of it.
            expected = (leaf.grad * direction).sum()
            torch.testing.assert_close(expected, change, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "model_dtype", [torch.float64, torch.float32, torch.bfloat16], ids=["64", "32", "16"]
)
def test_nats_and_gradients_are_those_of_torch(model_dtype):
    """Also of a token that is so unlikely that its probability is 0, and of one that is ruled out.

    Gradients are within the rounding of the model's dtype, nats within that of float32 at least.
    """
    bridge = tiny_bridge("llama", dtype=model_dtype)
    d_vocab = int(bridge.cfg.d_vocab)
    bias = torch.zeros(d_vocab, dtype=model_dtype)
    bias[5], bias[6] = -300, -torch.inf
    read = dataclasses.replace(readout(bridge), bias=bias)
    batch = token_batch(bridge, [[1, 5, 2, 7, 3], [4, 8, 9, 5]])
    late = torch.randn(2, 5, bridge.cfg.d_model).to(model_dtype).requires_grad_()
    found = next_token_nats(read, late, KnownText.from_batch(batch), backward=0.5)
    gradient, late.grad = late.grad, None
    wide = torch.promote_types(model_dtype, torch.float32)
    predicting = torch.cat([late[0, :4], late[1, :3]])
    following = torch.tensor([5, 2, 7, 3, 8, 9, 5])
    lost = nn.functional.cross_entropy(read(predicting).to(wide), following, reduction="none")
    expected = torch.stack([lost[:4].sum(), lost[4:].sum()])
    assert found.dtype == wide
    assert (expected > 300).all()
    torch.testing.assert_close(found, expected.detach(), rtol=1e-6, atol=0)
    (0.5 * lost.sum()).backward()
    tolerance = 4 * torch.finfo(model_dtype).eps * float(late.grad.abs().max())
    torch.testing.assert_close(gradient, late.grad, rtol=0, atol=tolerance)


def test_no_more_than_a_few_rows_of_logits_are_held(monkeypatch):
    rows = []
    logits = Readout.logits

    def watched(self, normalized, out=None):
        rows.append(normalized.shape[:-1].numel())
        return logits(self, normalized, out)

    monkeypatch.setattr(Readout, "logits", watched)
    texts = [random_tokens(100) for _ in range(8)]
    options = dataclasses.replace(SMALL, window=100, batch_size=6)
    train(shared_bridge("llama"), texts, steps=1, held_out=texts[:2], options=options)
    assert max(rows) == 128
