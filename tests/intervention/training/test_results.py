"""What training a patch finds, where it is known what there is to find, and what it returns."""

import dataclasses
import math

import numpy as np
import pytest
import torch

import lens_interventions as li
from lens_interventions.measures.intervals import mean_interval
from tests.support.clean import left_as_found
from tests.support.planted_copying import N_CTX, ablated_bridge, key_value_texts
from tests.support.small_training import SMALL, random_texts, train
from tests.support.tiny import random_tokens, shared_bridge, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact")


class TestPlanted:
    """Copying that was ablated comes back by the true token, and by nothing else."""

    OPTIONS = li.TrainingOptions(
        window=N_CTX, batch_size=8, evaluate_every=5, learning_rate=0.03, patience=None
    )

    def result(self, source):
        return li.train_patch(
            ablated_bridge(),
            key_value_texts(80, seed=1),
            layer=1,
            rank=16,
            source=source,
            steps=30,
            options=self.OPTIONS,
            progress=False,
        )

    def changes(self, *patches):
        """Change of the loss of each new text, nats a token."""
        texts = torch.stack(key_value_texts(40, seed=9))
        clean, *patched = li.teacher_forced_log_probs(ablated_bridge(), texts, [None, *patches])
        return [(clean - log_probs).mean(-1).numpy() for log_probs in patched]

    def interval(self, changes):
        counts = np.full(len(changes), 1)
        return mean_interval(changes, counts, level=0.99, rng=np.random.default_rng(0))

    def test_it_is_what_it_says(self):
        bridge = ablated_bridge()
        log_probs = li.teacher_forced_log_probs(
            bridge, torch.stack(key_value_texts(3, seed=2)), None
        )
        # All tokens are about as likely; exactly so would take a head without other rows' norms.
        torch.testing.assert_close(
            log_probs, torch.full_like(log_probs, -math.log(16)), rtol=0, atol=0.01
        )
        true, current = (
            li.NextTokenPatch(layer=1, strength=0.3, mode="add", source=source)
            for source in ("true", "current")
        )
        restored, not_restored = self.changes(true, current)
        assert self.interval(restored).high < -0.05
        assert self.interval(not_restored).low > 0

    def test_the_true_token_is_learned(self):
        result = self.result("true")
        assert result.held_out["change"].min() < -0.1
        (changes,) = self.changes(result.patch)
        assert self.interval(changes).high < -0.1

    @pytest.mark.parametrize("source", ["current", "constant"])
    def test_no_news_is_not(self, source):
        result = self.result(source)
        # Held-out text never gains at any time, so that the best write is none.
        assert result.held_out["change"].min() >= -1e-12
        assert result.curve["gradient_norm"].min() > 0
        (changes,) = self.changes(result.patch)
        assert self.interval(changes).high >= 0


class TestResult:
    def test_every_way_of_running_what_was_trained(self):
        bridge = tiny_bridge("llama")
        with left_as_found(bridge):
            texts = random_texts(4)
            result = train(bridge, texts, held_out=texts, layer=(0, 2), source="shuffled", steps=12)
        assert result.settings["best_step"] > 0
        whole = random_tokens(1, 6)
        new = li.generate(bridge, whole, result.patch, max_new_tokens=5, stop_at_eos=False)
        whole = torch.cat([whole, new.tokens], dim=1)
        log_probs = li.teacher_forced_log_probs(bridge, whole, result.patch)
        torch.testing.assert_close(new.log_probs, log_probs[:, 5:], rtol=0, atol=1e-9)
        logits = li.teacher_forced_logits(bridge, whole, result.patch)[:, -1]
        hooks = result.patch.fwd_hooks(bridge, whole)
        torch.testing.assert_close(
            bridge.run_with_hooks(whole, fwd_hooks=hooks)[:, -1], logits, rtol=0, atol=1e-9
        )
        none = li.teacher_forced_logits(bridge, whole, None)[:, -1]
        assert (logits - none).abs().max() > 1e-3

    def test_the_best_write_is_kept_and_patience_ends(self):
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

    def test_it_learns_by_heart_what_it_sees_again_and_again(self):
        bridge, texts = shared_bridge("gpt2"), random_texts(4)
        options = dataclasses.replace(SMALL, batch_size=4, learning_rate=0.05)
        result = train(bridge, texts, held_out=texts, rank=None, steps=40, options=options)
        assert result.held_out["change"].iloc[-1] < -0.5

    def test_the_curve_says_how_it_was_trained(self):
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

    def test_its_figure_shows_both_curves(self):
        result = train(shared_bridge("llama"))
        figure = result.plot(theme="dark")
        for trace, frame in zip(figure.data, (result.curve, result.held_out), strict=True):
            assert list(trace.x) == frame["step"].tolist()
            # Figures keep five decimals.
            np.testing.assert_allclose(trace.y, frame["change"], rtol=0, atol=5.1e-6)
        assert "layer 1, source true" in figure.layout.title.text

    def test_half_precision_models_train_in_float32(self):
        result = train(tiny_bridge("llama", dtype=torch.bfloat16), steps=2)
        assert result.write.up.dtype == torch.float32
        assert result.curve["loss"].notna().all()
