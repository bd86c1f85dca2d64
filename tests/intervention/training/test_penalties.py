"""What a training pays for besides the loss: long writes, and changed predictions."""

import dataclasses
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, kl_divergence

import lens_interventions as li
from lens_interventions.intervention.known_text import KnownText
from lens_interventions.intervention.training import loop, loss
from lens_interventions.intervention.training.corpus import visited
from lens_interventions.intervention.training.loss import changed_nats, patched_losses
from lens_interventions.model.gradients import frozen
from lens_interventions.model.readout import readout
from lens_interventions.model.tokens import token_batch
from tests.intervention.test_learned_write import random_write
from tests.intervention.training.test_loop import median_size
from tests.support.clean import left_as_found
from tests.support.small_training import (
    SMALL,
    assert_same_bits,
    bias_patch,
    random_texts,
    tensors,
    train,
)
from tests.support.stopped import stopped
from tests.support.tiny import shared_bridge, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact")

# Learning by heart, fast: what a penalty holds back has grown by then.
EAGER = dataclasses.replace(SMALL, learning_rate=0.05, patience=None)


def own_texts(bridge, n=12):
    return list(li.sample_texts(bridge, n, length=12, seed=3, progress=False))


@torch.no_grad()
def lengths_in_a_plain_run(bridge, patch, tokens):
    """The lengths of the writes to layers 1 and 2 as shares of the residual, by hooks alone."""
    total = 0.0
    for name, write in patch.fwd_hooks(bridge, tokens):

        def measured(resid, hook, write=write):
            nonlocal total
            old = resid.clone()
            new = write(resid, hook=hook)
            if new is None:  # the hook that checks the tokens
                return None
            total += float(((new - old).norm(dim=-1) / old.norm(dim=-1)).sum())
            return new

        bridge.add_hook(name, measured)
    try:
        bridge(tokens)
    finally:
        bridge.reset_hooks()
    return total


@torch.no_grad()
@pytest.mark.parametrize("arch", ["gpt2", "llama"])
def test_lengths_are_those_that_hooks_see(arch):
    """Texts of several lengths, one without any position to patch; two layers in a row."""
    bridge = tiny_bridge(arch)
    patch = random_write(bridge, layers=(1, 2), gate=True).patch(first_position=1)
    texts = [*random_texts(4), [5, 6]]
    batch = token_batch(bridge, texts)
    resid = bridge(batch.tokens, stop_at_layer=1)
    _, found = patched_losses(bridge, patch.bind(bridge), resid, KnownText.from_batch(batch))
    expected = [lengths_in_a_plain_run(bridge, patch, torch.tensor([text])) for text in texts]
    assert min(expected[:4]) > 0.1
    assert expected[4] == 0
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0
    )


# Layer norms stay in float64, RMS norms round to float32: too coarse for differences of 1e-5.
@pytest.mark.parametrize("arch", ["gpt2", "gpt_neox"])
def test_the_gradient_of_long_writes_is_that_of_finite_differences(arch):
    bridge = shared_bridge(arch)
    write = random_write(bridge, layers=(1, 2), gate=True)
    leaves = {name: leaf for name, leaf in tensors(write).items() if leaf is not None}
    batch = token_batch(bridge, random_texts(3))
    text = KnownText.from_batch(batch)
    with torch.no_grad():
        resid = bridge(batch.tokens, stop_at_layer=1)

    def cost(values, **options):
        patch = dataclasses.replace(write, **values).patch().bind(bridge)
        nats, shares = patched_losses(bridge, patch, resid, text, **options)
        return nats.sum() + 30 * shares.sum()

    for leaf in leaves.values():
        leaf.requires_grad_()
    with frozen(bridge):
        cost(leaves, backward=0.25, write_penalty=30.0)
    for name, leaf in leaves.items():
        step = 1e-5 * torch.randn_like(leaf)
        up, down = (cost({**leaves, name: leaf.detach() + sign * step}) for sign in (1, -1))
        expected = (leaf.grad * step).sum() / 1e-5
        # Differences of a cost of some 500 nats are good to 1e-8 of it.
        torch.testing.assert_close(expected, 0.25 * (up - down) / 2e-5, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_changes_and_their_gradient_are_those_of_torch(monkeypatch, dtype):
    """Over texts of several lengths and chunks of logits, and with a token that the head excludes.

    Gradients are within the rounding of the dtype.
    """
    monkeypatch.setattr(loss, "LOGIT_ROWS", 3)
    bridge = tiny_bridge("llama", dtype=dtype)
    batch = token_batch(bridge, [[1, 5, 2, 7, 3], [4, 8, 9, 5]])
    bias = torch.zeros(int(bridge.cfg.d_vocab), dtype=dtype)
    bias[6] = -torch.inf
    read = dataclasses.replace(readout(bridge), bias=bias)
    clean, late = (torch.randn(2, 5, bridge.cfg.d_model).to(dtype) for _ in range(2))
    late.requires_grad_()
    found = changed_nats(read, late, clean, KnownText.from_batch(batch), backward=0.5)
    gradient, late.grad = late.grad, None
    wide = torch.promote_types(dtype, torch.float32)
    expected, patched = (Categorical(logits=read(some).to(wide)) for some in (clean, late))
    nats = (
        (expected.probs * (expected.logits - patched.logits)).where(expected.probs > 0, 0).sum(-1)
    )
    sums = torch.stack([nats[0, :4].sum(), nats[1, :3].sum()])
    assert (sums > 0.1).all()
    torch.testing.assert_close(found, sums.detach(), rtol=1e-5, atol=0)
    (0.5 * sums.sum()).backward()
    tolerance = 8 * torch.finfo(dtype).eps * float(late.grad.abs().max())
    torch.testing.assert_close(gradient, late.grad, rtol=0, atol=tolerance)


def test_a_penalty_on_long_writes_makes_them_shorter():
    bridge, texts = shared_bridge("llama"), random_texts(4)
    free, paid = (
        train(bridge, texts, held_out=texts, steps=12, options=options)
        for options in (EAGER, dataclasses.replace(EAGER, write_penalty=20.0))
    )
    assert free.curve["write_length"][0] == paid.curve["write_length"][0] == 0
    assert paid.held_out["write_length"].iloc[-1] < 0.5 * free.held_out["write_length"].iloc[-1]
    # The loss is told without the penalty, and the best step with it.
    cost = paid.held_out["loss"] + 20 * paid.held_out["write_length"]
    assert paid.settings["best_step"] == paid.held_out["step"][cost.idxmin()]
    assert paid.held_out["loss"].idxmin() != cost.idxmin()
    np.testing.assert_allclose(
        paid.held_out["change"], paid.held_out["loss"] - paid.held_out["clean_loss"]
    )


@pytest.mark.parametrize("adapt", [None, "attention"])
def test_a_penalty_on_changes_keeps_predictions(adapt):
    bridge, texts = shared_bridge("llama"), random_texts(4)
    own = own_texts(bridge)
    results = [
        train(bridge, texts, held_out=texts, preserve=own, adapt=adapt, steps=12, options=options)
        for options in (dataclasses.replace(EAGER, change_penalty=cost) for cost in (1e-9, 30.0))
    ]
    free, paid = results
    assert free.curve["kl"][0] == pytest.approx(0, abs=1e-12)
    assert 0 < paid.held_out["kl"].iloc[-1] < 0.5 * free.held_out["kl"].iloc[-1]
    # Of twelve texts the tenth is held out.
    with nullcontext() if free.reader is None else free.reader.on(bridge), torch.no_grad():
        (patched,) = li.teacher_forced_logits(bridge, own[9][None], [free.patch])
    with torch.no_grad():
        clean = bridge(own[9][None])
    nats = kl_divergence(*(Categorical(logits=logits[0, :-1]) for logits in (clean, patched)))
    best = free.held_out.set_index("step").loc[free.settings["best_step"]]
    assert float(nats.mean()) == pytest.approx(best["kl"], rel=1e-6)


def test_interrupted_training_with_penalties_ends_in_the_same_bits(tmp_path):
    bridge, path = shared_bridge("gpt2"), tmp_path / "training"
    options = dataclasses.replace(SMALL, write_penalty=0.5, change_penalty=2.0)
    common = {"steps": 7, "options": options, "preserve": own_texts(bridge)}
    whole = train(bridge, **common)
    assert whole.curve["kl"].iloc[-1] > 0
    with stopped(loop, "changed_nats", call=6), left_as_found(bridge):
        train(bridge, checkpoint=path, save_every=2, **common)
    assert path.exists()
    finished = train(bridge, checkpoint=path, save_every=2, **common)
    assert finished.curve.equals(whole.curve)
    assert_same_bits(finished.write, whole.write)
    assert finished.held_out.equals(whole.held_out)
    assert finished.settings == whole.settings
    other = list(common["preserve"])
    other[9] = other[9].flip(0)  # the one that is held out
    with pytest.raises(ValueError, match="differs in preserved_held_out_texts"):
        train(bridge, checkpoint=path, **{**common, "preserve": other})


class TestSteps:
    """Steps against a plain graph of all that they pay for, and in groups of pieces."""

    OPTIONS = dataclasses.replace(
        SMALL,
        batch_size=4,
        learning_rate=0.3,
        warmup=0.0,
        max_gradient_norm=1e6,
        write_penalty=3.0,
        change_penalty=7.0,
    )

    def curve(self, bridge, **options):
        own, texts = own_texts(bridge, 10), random_texts(4)
        common = {"held_out": texts, "preserve": own, "steps": 3, "options": self.OPTIONS}
        return train(bridge, texts, **common, **options).curve

    def test_they_are_those_of_adamw_on_the_whole_cost(self):
        bridge, texts = shared_bridge("gpt2"), random_texts(4)
        own = own_texts(bridge, 10)
        size = median_size(bridge, texts, layer=1, first_position=1)
        resid = bridge(token_batch(bridge, texts).tokens, stop_at_layer=1).detach()
        leaf = torch.zeros(bridge.cfg.d_model, dtype=torch.float64, requires_grad=True)
        patch = bias_patch(size, leaf)
        optimizer = torch.optim.AdamW([leaf], weight_decay=0.0)
        expected = []
        for step in range(3):
            log_probs = li.teacher_forced_log_probs(bridge, texts, patch, enable_grad=True)
            loss = -log_probs.nansum() / sum(len(text) - 1 for text in texts)
            shares = [
                (size * leaf).norm() / row.norm()
                for text, rows in zip(texts, resid, strict=True)
                for row in rows[1 : len(text) - 1]
            ]
            length = sum(shares) / sum(len(text) - 1 for text in texts)
            # The tenth text is held out.
            visits = torch.stack([own[i] for i in visited(9, 4, step, 0)[0]])
            clean, patched = (
                Categorical(logits=li.teacher_forced_logits(bridge, visits, each, enable_grad=True))
                for each in (None, patch)
            )
            kl = kl_divergence(clean, patched)[:, :-1].mean()
            (leaf.grad,) = torch.autograd.grad(loss + 3 * length + 7 * kl, leaf)
            parts = (loss, length, kl, leaf.grad.norm())
            expected.append([float(part.detach()) for part in parts])
            optimizer.param_groups[0]["lr"] = self.OPTIONS.learning_rate_at(step, 3)
            optimizer.step()
        columns = ["loss", "write_length", "kl", "gradient_norm"]
        found = self.curve(bridge, source="zero")[columns].to_numpy()
        # AdamW's steps multiply what rounding leaves of a gradient.
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)
        assert (found[1:] > 0.01).all()

    @pytest.mark.parametrize("adapt", [None, "attention"])
    def test_they_do_not_depend_on_what_goes_through_together(self, monkeypatch, adapt):
        bridge = shared_bridge("gpt2")
        whole = self.curve(bridge, adapt=adapt)
        monkeypatch.setattr(loop, "_STREAM_ROWS", 48)  # two pieces
        parts = self.curve(bridge, adapt=adapt)
        for column in whole:
            np.testing.assert_allclose(parts[column], whole[column], rtol=1e-6, atol=1e-12)


def test_what_a_base_writes_costs_nothing():
    bridge = shared_bridge("llama")
    base = train(bridge, source="current", options=EAGER).write
    options = dataclasses.replace(EAGER, write_penalty=0.5)
    result = train(bridge, base=base, options=options)
    assert base.up.abs().max() > 0
    assert result.curve["write_length"][0] == 0
    assert result.curve["write_length"].iloc[-1] > 0


@pytest.mark.usefixtures("as_users_run")
def test_a_base_is_a_write_and_not_all_of_a_training():
    bridge = shared_bridge("llama")
    base = train(bridge, source="current", options=EAGER)
    with pytest.raises(TypeError, match=r"base must be the write .*: pass its \.write"):
        train(bridge, base=base, options=EAGER)


@pytest.mark.parametrize("adapt", [None, "attention"])
def test_texts_without_a_position_to_patch(adapt):
    """Two tokens: the first is spared, and after the second nothing is predicted."""
    options = dataclasses.replace(SMALL, batch_size=1, write_penalty=0.5, change_penalty=2.0)
    texts = [[5, 6], *random_texts(3)]
    preserve = [[7, 8], *random_texts(11, seed=1)]
    result = train(
        shared_bridge("gpt2"),
        texts,
        held_out=texts,
        preserve=preserve,
        adapt=adapt,
        options=options,
    )
    assert (result.curve["write_length"] == 0).any()
    assert result.curve["loss"].notna().all()


def test_a_residual_of_length_zero_has_no_share():
    bridge = tiny_bridge("llama")
    with torch.no_grad():
        bridge.original_model.model.embed_tokens.weight[7] = 0
    options = dataclasses.replace(SMALL, write_penalty=0.5)
    result = train(bridge, [[5, 7, 6, 7, 8, 9]] * 12, layer=0, options=options)
    assert result.held_out["write_length"].notna().all()
    assert result.settings["best_step"] > 0


@pytest.mark.usefixtures("as_users_run")
def test_penalties_that_cannot_work_are_refused():
    bridge = shared_bridge("llama")
    fixed = {"strength": 0.5, "adapt": "attention"}
    with pytest.raises(ValueError, match=r"a write_penalty of 0\.5 cannot make it shorter"):
        train(bridge, options=dataclasses.replace(SMALL, write_penalty=0.5), **fixed)
    options = dataclasses.replace(SMALL, change_penalty=1.0)
    with pytest.raises(ValueError, match="preserve: 3 pieces of 12 tokens"):
        train(bridge, preserve=[[5, 6, 7]] * 3, options=options)


@pytest.mark.parametrize(("penalty", "preserve"), [(1.0, None), (0.0, [[5, 6, 7]])])
def test_a_penalty_on_changes_and_its_texts_go_together(penalty, preserve):
    options = dataclasses.replace(SMALL, change_penalty=penalty)
    with pytest.raises(ValueError, match="a change_penalty needs texts to preserve"):
        train(shared_bridge("llama"), options=options, preserve=preserve)
