"""The loop: where it starts, its steps, that runs are repeatable, what it keeps, when it ends."""

import dataclasses
import math

import numpy as np
import pytest
import torch

import lens_interventions as li
from lens_interventions.intervention.training.loop import DivergenceError, WriteTraining
from tests.support.small_training import (
    NO_STEPS,
    SMALL,
    assert_same_bits,
    bias_patch,
    random_texts,
    train,
)
from tests.support.tiny import random_tokens, shared_bridge, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact")

LONGEST_GRADIENT = 0.138


@torch.no_grad()
def median_size(bridge, texts, *, layer, first_position):
    """Median root mean square of the residual before a layer."""
    sizes = []
    for text in texts:
        resid = bridge(torch.tensor([text]), stop_at_layer=layer)[0, first_position:]
        sizes += [float((row**2).mean() ** 0.5) for row in resid]
    return torch.tensor(sizes, dtype=torch.float64).median()


class TestStart:
    @pytest.mark.parametrize("rank", [4, None])
    @pytest.mark.parametrize("scale", ["raw", "norm"])
    def test_step_0_is_the_model_itself(self, rank, scale):
        bridge = shared_bridge("llama")
        options = dataclasses.replace(NO_STEPS, scale=scale, input_gate=True)
        result = train(bridge, rank=rank, layer=(0, 2), options=options)
        assert result.settings["best_step"] == 0
        tokens = random_tokens(2, 20)
        none, start = li.teacher_forced_logits(bridge, tokens, [None, result.patch])
        torch.testing.assert_close(start, none, rtol=0, atol=0)
        for frame in (result.curve, result.held_out):
            assert frame["step"][0] == 0
            assert frame["change"][0] == pytest.approx(0, abs=1e-12)

    def test_the_clean_loss_is_that_of_the_model(self):
        bridge, texts = shared_bridge("llama"), random_texts()
        result = train(bridge, texts[:20], held_out=texts[20:], steps=1)
        assert max(map(len, texts[20:])) <= SMALL.window
        log_probs = li.teacher_forced_log_probs(bridge, texts[20:], None)
        expected = -float(log_probs.nanmean())
        assert result.held_out["clean_loss"][0] == pytest.approx(expected, abs=1e-9)


def test_all_sources_see_the_same_text_from_the_same_start():
    bridge = shared_bridge("llama")
    options = NO_STEPS
    runs = {
        source: train(bridge, source=source, options=options, steps=3)
        for source in ("true", "random", "shuffled", "current", "guess", "zero")
    }
    for source, run in runs.items():
        assert (run.curve["clean_loss"] == runs["true"].curve["clean_loss"]).all()
        assert (run.held_out["clean_loss"] == runs["true"].held_out["clean_loss"]).all()
        assert run.settings["texts"] == runs["true"].settings["texts"]
        if source != "zero":
            assert_same_bits(run.write, runs["true"].write)
    other = train(bridge, seed=1, options=options, steps=3)
    assert (other.curve["clean_loss"] != runs["true"].curve["clean_loss"]).any()
    assert (other.write.down != runs["true"].write.down).all()
    assert (other.held_out["clean_loss"] == runs["true"].held_out["clean_loss"]).all()


def test_two_runs_are_one():
    bridge = shared_bridge("gpt2")
    one, two = (train(bridge, source="random", layer=(0, 2)) for _ in range(2))
    assert_same_bits(one.write, two.write)
    assert one.curve.equals(two.curve)


def test_the_best_write_is_kept_and_patience_ends():
    bridge, texts = shared_bridge("llama"), random_texts()
    options = dataclasses.replace(SMALL, learning_rate=0.05, evaluate_every=2, patience=2)
    result = train(bridge, texts[:4], held_out=texts[12:16], steps=200, options=options)
    best = result.held_out.loc[result.held_out["loss"].idxmin()]
    assert result.settings["best_step"] == best["step"]
    # Learned by heart: what the training text gains, other text loses.
    assert result.settings["steps_made"] == best["step"] + 4 < 200
    assert len(result.curve) == result.settings["steps_made"]
    log_probs = li.teacher_forced_log_probs(
        bridge, [text[:12] for text in texts[12:16]], result.patch
    )
    assert float(-log_probs.nanmean()) == pytest.approx(best["loss"], abs=1e-9)


def test_it_learns_by_heart_what_it_sees_again_and_again():
    bridge, texts = shared_bridge("gpt2"), random_texts(4)
    options = dataclasses.replace(SMALL, batch_size=4, learning_rate=0.05)
    result = train(bridge, texts, held_out=texts, rank=None, steps=40, options=options)
    assert result.held_out["change"].iloc[-1] < -0.5


def test_the_curve_says_how_it_was_trained():
    result = train(shared_bridge("llama"), steps=20)
    rates = result.curve["learning_rate"].to_numpy()
    assert rates[0] == SMALL.learning_rate  # one step of warm-up
    expected = [0.005 * (1 + math.cos(math.pi * (k - 1) / 19)) for k in range(1, 20)]
    np.testing.assert_allclose(rates[1:], expected, atol=1e-15)
    assert result.curve["step"].tolist() == list(range(20))
    assert result.held_out["step"].tolist() == [0, 4, 8, 12, 16, 20]
    np.testing.assert_allclose(
        result.curve["change"], result.curve["loss"] - result.curve["clean_loss"]
    )
    slow = dataclasses.replace(SMALL, warmup=0.25)
    rates = [slow.learning_rate_at(k, 20) for k in range(6)]
    np.testing.assert_allclose(rates, [0.002, 0.004, 0.006, 0.008, 0.01, 0.01])
    kept = dataclasses.replace(SMALL, warmup=0.0, final_rate=0.1)
    rates = [kept.learning_rate_at(k, 20) for k in (0, 10, 20)]
    np.testing.assert_allclose(rates, [0.01, 0.0055, 0.001])


def test_half_precision_models_train_in_float32():
    result = train(tiny_bridge("llama", dtype=torch.bfloat16), steps=2)
    assert result.write.up.dtype == torch.float32
    assert result.curve["loss"].notna().all()


def test_steps_are_those_of_adamw_on_the_mean_loss_per_predicted_token():
    bridge, texts = shared_bridge("gpt2"), random_texts(3)
    options = dataclasses.replace(
        SMALL,
        batch_size=3,  # every text at every step
        learning_rate=0.3,
        warmup=0.0,
        weight_decay=0.5,
        max_gradient_norm=LONGEST_GRADIENT,
        evaluate_every=1,
        patience=None,
    )
    result = train(bridge, texts, held_out=texts, source="zero", steps=3, options=options)
    size = median_size(bridge, texts, layer=1, first_position=1)
    leaf = torch.zeros(bridge.cfg.d_model, dtype=torch.float64, requires_grad=True)
    patch = bias_patch(size, leaf)
    optimizer = torch.optim.AdamW([leaf], weight_decay=0.5)
    losses, norms = [], []
    for rate in (0.3, 0.225, 0.075):  # half a wave of a cosine
        log_probs = li.teacher_forced_log_probs(bridge, texts, patch, enable_grad=True)
        loss = -log_probs.nansum() / sum(len(text) - 1 for text in texts)
        (leaf.grad,) = torch.autograd.grad(loss, leaf)
        losses.append(float(loss.detach()))
        norms.append(float(leaf.grad.norm()))
        leaf.grad *= min(1.0, LONGEST_GRADIENT / norms[-1])
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    # Some gradients are cut and some are not.
    assert min(norms) < LONGEST_GRADIENT < max(norms)
    # Both sums are of some 30 numbers in float64; steps and gradients are of order 0.1 and more.
    np.testing.assert_allclose(result.curve["loss"], losses, rtol=1e-9)
    np.testing.assert_allclose(result.curve["gradient_norm"], norms, rtol=1e-6)
    assert result.settings["best_step"] == 3
    torch.testing.assert_close(result.write.bias[0], size * leaf.detach(), rtol=1e-6, atol=1e-8)


def test_held_out_losses_are_measured_with_the_same_draws_at_every_step():
    options = dataclasses.replace(NO_STEPS, evaluate_every=1, patience=None)
    # A fixed write and a reader that learns nothing: only other draws could change the loss.
    result = train(
        shared_bridge("gpt2"),
        source="random",
        strength=2.0,
        adapt="attention",
        steps=3,
        options=options,
    )
    assert result.held_out["step"].tolist() == [0, 1, 2, 3]
    assert abs(result.held_out["change"][0]) > 1e-3
    # The reader's updates are about 1e-300: nothing in float64.
    assert (result.held_out["loss"] == result.held_out["loss"][0]).all()


def test_the_first_step_is_the_learning_rate_in_typical_residuals_of_patched_positions():
    bridge, texts = shared_bridge("gpt2"), random_texts(3)
    options = dataclasses.replace(
        SMALL, batch_size=3, learning_rate=0.01, warmup=0.0, first_position=3
    )
    result = train(bridge, texts, held_out=texts, source="zero", steps=1, options=options)
    assert result.settings["best_step"] == 1
    size = median_size(bridge, texts, layer=1, first_position=3)
    assert abs(median_size(bridge, texts, layer=1, first_position=0) / size - 1) > 1e-3
    # AdamW's first step moves every number by the rate, but for 1e-8 beside a gradient of 1e-3.
    moved = result.write.bias[0].abs().median()
    assert float(moved) == pytest.approx(0.01 * float(size), rel=1e-5)


@pytest.mark.parametrize("rank", [4, None])
def test_the_length_of_embeddings_changes_no_training(rank):
    """Longer rows of the unembedding, after a final norm that is as much smaller."""
    options = dataclasses.replace(SMALL, embedding="W_U")
    longer = tiny_bridge("llama")
    with torch.no_grad():
        longer.original_model.lm_head.weight.mul_(8)
        longer.original_model.model.norm.weight.div_(8)
    one, other = (
        train(bridge, rank=rank, steps=3, options=options)
        for bridge in (shared_bridge("llama"), longer)
    )
    assert one.curve["change"].abs().max() > 1e-4
    # Powers of two round nothing; AdamW's 1e-8 stands beside the same gradients.
    np.testing.assert_allclose(other.curve["loss"], one.curve["loss"], rtol=1e-9)
    np.testing.assert_allclose(other.curve["gradient_norm"], one.curve["gradient_norm"], rtol=1e-6)


def test_a_checkpoint_is_for_the_text_that_chose_its_best_step(tmp_path):
    bridge, texts = shared_bridge("llama"), random_texts()
    options = {"texts": texts, "checkpoint": tmp_path / "training", "save_every": 1}
    train(bridge, steps=2, held_out=texts[:2], **options)
    with pytest.raises(ValueError, match="differs in held_out_texts"):
        train(bridge, steps=2, held_out=texts[2:4], **options)


@pytest.mark.parametrize("scale", ["raw", "norm"])
def test_centred_embeddings_lack_what_all_tokens_have_in_common(scale):
    """So a write of the average embedding has nothing to read."""
    changes = {}
    for embedding in ("W_E", "W_E_centred"):
        options = dataclasses.replace(SMALL, bias=False, scale=scale, embedding=embedding)
        result = train(shared_bridge("llama"), source="average", steps=3, options=options)
        assert result.write.embedding == embedding
        changes[embedding] = result.curve["change"].abs().max()
    assert changes["W_E"] > 1e-4
    assert changes["W_E_centred"] < 1e-12


def test_a_training_that_diverges_gives_its_best_write(monkeypatch, tmp_path):
    bridge, texts = shared_bridge("llama"), random_texts()
    held_out = [text for text in texts if len(text) <= SMALL.window][:4]
    options = {"held_out": held_out, "steps": 12, "checkpoint": tmp_path / "training"}
    whole = train(bridge, texts, **{**options, "checkpoint": None}).held_out.set_index("step")
    step = WriteTraining._step

    def breaks(self):
        step(self)
        if self.state.step == 9:
            self.state.leaves["bias"].data.fill_(math.nan)

    monkeypatch.setattr(WriteTraining, "_step", breaks)
    found = []
    for _ in range(2):  # the second time from the checkpoint
        with pytest.raises(DivergenceError, match="the held-out loss is nan after 12 st") as caught:
            train(bridge, texts, **options, save_every=100)
        found.append(caught.value.best)
    best = whole["loss"].loc[:9].idxmin()
    assert found[0].settings["best_step"] == best > 0
    log_probs = li.teacher_forced_log_probs(bridge, held_out, found[0].patch())
    assert -float(log_probs.nanmean()) == pytest.approx(whole["loss"][best], abs=1e-9)
    assert_same_bits(*found)
