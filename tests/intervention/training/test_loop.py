"""The loop: where it starts, that runs are repeatable, what it keeps and when it ends."""

import dataclasses
import math

import numpy as np
import pytest
import torch

import lens_interventions as li
from tests.support.small_training import (
    NO_STEPS,
    SMALL,
    assert_same_bits,
    random_texts,
    train,
)
from tests.support.tiny import random_tokens, shared_bridge, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact")


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


def test_half_precision_models_train_in_float32():
    result = train(tiny_bridge("llama", dtype=torch.bfloat16), steps=2)
    assert result.write.up.dtype == torch.float32
    assert result.curve["loss"].notna().all()
