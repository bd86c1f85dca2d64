"""Training a patch: the loss and its gradient, what is learned, going on, what is left behind."""

import dataclasses
import math

import numpy as np
import pytest
import torch

import lens_interventions as li
from lens_interventions import training_loss, write_training
from lens_interventions.adapter import Readout
from lens_interventions.intervals import mean_interval
from lens_interventions.patch_site import KnownText
from lens_interventions.token_batch import token_batch
from lens_interventions.training_loss import patched_nats
from lens_interventions.training_windows import visited
from tests.clean import left_as_found
from tests.planted_copying import N_CTX, ablated_bridge, key_value_texts
from tests.test_learned_write import random_write
from tests.tiny import D_VOCAB, shared_bridge, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact")

SMALL = li.TrainingOptions(
    window=12, batch_size=3, evaluate_every=4, learning_rate=0.01, held_out_windows=4
)
# So slow that nothing changes by a bit: what comes out is what it began with.
NO_STEPS = dataclasses.replace(SMALL, learning_rate=1e-300)


def random_texts(n=24, *, seed=0):
    """Token ids of 5 to 14 tokens."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randint(4, D_VOCAB, (5 + i % 10,), generator=generator).tolist() for i in range(n)
    ]


def train(bridge, texts=None, **options):
    texts = random_texts() if texts is None else texts
    defaults = {"layer": 1, "rank": 4, "steps": 9, "options": SMALL, "progress": False}
    return li.train_patch(bridge, texts, **{**defaults, **options})


def tensors(write):
    names = ("down", "up", "bias", "gate_weight", "gate_bias")
    return {name: getattr(write, name) for name in names}


def assert_same_bits(one, other):
    for name, value in tensors(one).items():
        if value is None:
            assert getattr(other, name) is None
        else:
            torch.testing.assert_close(value, getattr(other, name), rtol=0, atol=0)


def runs_below(bridge, texts, **options):
    """How often block 1 ran in a training of block 2, and what was trained."""
    runs = []
    handle = bridge.blocks[1].attn.register_forward_hook(lambda *_: runs.append(1))
    try:
        result = train(bridge, texts, layer=2, **options)
    finally:
        handle.remove()
    return len(runs), result


class TestLoss:
    @torch.no_grad()
    @pytest.mark.parametrize("arch", ["gpt2", "llama", "gemma2"])
    def test_it_is_that_of_teacher_forcing(self, arch):
        bridge = shared_bridge(arch)
        patch = random_write(bridge, layers=(0, 2), gate=True, source="random").patch()
        texts, seeds = random_texts(4), torch.arange(4)
        batch = token_batch(bridge, texts)
        text = KnownText.from_batch(batch, text_seeds=seeds)
        resid = bridge(batch.tokens, stop_at_layer=0)
        found = patched_nats(bridge, patch.bind(bridge), resid, text)
        log_probs = li.teacher_forced_log_probs(bridge, texts, patch, text_seeds=seeds)
        torch.testing.assert_close(found, -log_probs.nansum(-1), rtol=0, atol=1e-9)

    # Layer norms stay in float64, RMS norms round to float32: too coarse for differences of 1e-5.
    @pytest.mark.parametrize("arch", ["gpt2", "gpt_neox"])
    @pytest.mark.parametrize("full", [False, True])
    def test_its_gradient_is_that_of_finite_differences(self, monkeypatch, arch, full):
        """Of every tensor, over texts of several lengths, two layers and many chunks of logits."""
        monkeypatch.setattr(training_loss, "LOGIT_ROWS", 7)
        bridge = shared_bridge(arch)
        write = random_write(bridge, layers=(1, 2), full=full, gate=True)
        leaves = {name: leaf for name, leaf in tensors(write).items() if leaf is not None}
        batch = token_batch(bridge, random_texts(3))
        text = KnownText.from_batch(batch)
        with torch.no_grad():
            resid = bridge(batch.tokens, stop_at_layer=1)

        def nats(values, backward=None):
            patch = dataclasses.replace(write, **values).patch()
            return patched_nats(bridge, patch.bind(bridge), resid, text, backward=backward)

        for leaf in leaves.values():
            leaf.requires_grad_()
        with write_training.frozen(bridge):
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

    def test_no_more_than_a_few_rows_of_logits_are_held(self, monkeypatch):
        rows = []
        logits = Readout.logits

        def watched(self, normalized, out=None):
            rows.append(normalized.shape[:-1].numel())
            return logits(self, normalized, out)

        monkeypatch.setattr(Readout, "logits", watched)
        texts = [torch.randint(4, D_VOCAB, (100,)) for _ in range(8)]
        options = dataclasses.replace(SMALL, window=100, batch_size=6)
        train(shared_bridge("llama"), texts, steps=1, held_out=texts[:2], options=options)
        assert max(rows) == 128


class TestStart:
    @pytest.mark.parametrize("rank", [4, None])
    @pytest.mark.parametrize("scale", ["raw", "norm"])
    def test_step_0_is_the_model_itself(self, rank, scale):
        bridge = shared_bridge("llama")
        options = dataclasses.replace(NO_STEPS, scale=scale, input_gate=True)
        result = train(bridge, rank=rank, layer=(0, 2), options=options)
        assert result.settings["best_step"] == 0
        tokens = torch.randint(4, D_VOCAB, (2, 20))
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


class TestOrder:
    def test_every_window_once_in_every_round_and_never_the_same_seed(self):
        seen, seeds = [], []
        for step in range(14):
            indices, drawn = visited(7, 4, step, 3)
            seen += indices
            seeds += drawn.tolist()
        rounds = [seen[i : i + 7] for i in range(0, 56, 7)]
        assert all(sorted(one) == list(range(7)) for one in rounds)
        assert len({tuple(one) for one in rounds}) == 8
        assert len(set(seeds)) == 56
        assert visited(7, 4, 5, 3)[0] == seen[20:24]

    def test_all_sources_see_the_same_text_from_the_same_start(self):
        bridge = shared_bridge("llama")
        options = NO_STEPS
        runs = {
            source: train(bridge, source=source, options=options, steps=3)
            for source in ("true", "random", "shuffled", "current", "guess", "constant")
        }
        for source, run in runs.items():
            assert (run.curve["clean_loss"] == runs["true"].curve["clean_loss"]).all()
            assert (run.held_out["clean_loss"] == runs["true"].held_out["clean_loss"]).all()
            assert run.settings["texts"] == runs["true"].settings["texts"]
            if source != "constant":
                assert_same_bits(run.write, runs["true"].write)
        other = train(bridge, seed=1, options=options, steps=3)
        assert (other.curve["clean_loss"] != runs["true"].curve["clean_loss"]).any()
        assert (other.write.down != runs["true"].write.down).all()
        assert (other.held_out["clean_loss"] == runs["true"].held_out["clean_loss"]).all()

    def test_two_runs_are_one(self):
        bridge = shared_bridge("gpt2")
        one, two = (train(bridge, source="random", layer=(0, 2)) for _ in range(2))
        assert_same_bits(one.write, two.write)
        assert one.curve.equals(two.curve)

    def test_blocks_below_run_once_for_each_window(self):
        bridge, texts = tiny_bridge("llama"), random_texts(12)
        train(bridge, texts, layer=2, steps=1)  # checks that are made once for each model
        once, _ = runs_below(bridge, texts, steps=5)
        again, kept = runs_below(bridge, texts, steps=15)
        assert again == once
        without, recomputed = runs_below(bridge, texts, steps=15, store=li.ResidualStore(gib=0))
        assert without > 2 * once
        assert_same_bits(kept.write, recomputed.write)

    def test_a_store_is_shared_between_trainings(self):
        bridge, store = tiny_bridge("llama"), li.ResidualStore()
        texts = random_texts(12)
        alone, expected = runs_below(bridge, texts, steps=5, source="current")
        train(bridge, texts, layer=2, steps=5, store=store)
        shared, found = runs_below(bridge, texts, steps=5, source="current", store=store)
        assert shared <= alone - 12
        assert_same_bits(found.write, expected.write)
        # What another layer or other weights leave is another thing.
        train(bridge, texts, layer=1, steps=5, store=store)
        other = tiny_bridge("llama", seed=1)
        assert_same_bits(
            train(other, texts, layer=2, store=store).write, train(other, texts, layer=2).write
        )
        with (
            bridge.hooks(fwd_hooks=[("blocks.0.hook_out", lambda resid, hook: 2 * resid)]),
            pytest.raises(ValueError, match="there are hooks on the bridge"),
        ):
            train(bridge, texts, layer=2, store=store)


class TestGoingOn:
    @pytest.mark.parametrize("source", ["true", "random", "constant"])
    def test_interrupted_training_ends_in_the_same_bits(self, monkeypatch, tmp_path, source):
        bridge, path = shared_bridge("llama"), tmp_path / "training"
        options = {
            "source": source,
            "steps": 13,
            "options": dataclasses.replace(SMALL, input_gate=True),
        }
        whole = train(bridge, **options)
        step = write_training.WriteTraining._step
        for stop in (2, 5, 11):  # before the first checkpoint, and twice after

            def stops(self, stop=stop):
                if self.state.step == stop:
                    raise KeyboardInterrupt
                step(self)

            monkeypatch.setattr(write_training.WriteTraining, "_step", stops)
            with pytest.raises(KeyboardInterrupt), left_as_found(bridge):
                train(bridge, checkpoint=path, save_every=3, **options)
            assert path.exists() == (stop >= 3)
        monkeypatch.setattr(write_training.WriteTraining, "_step", step)
        finished = train(bridge, checkpoint=path, save_every=3, **options)
        assert_same_bits(finished.write, whole.write)
        assert finished.curve.equals(whole.curve)
        assert finished.held_out.equals(whole.held_out)
        assert finished.settings == whole.settings
        assert [file.name for file in tmp_path.iterdir()] == ["training"]

        monkeypatch.setattr(write_training.WriteTraining, "_step", None)  # nothing is left to do
        assert_same_bits(train(bridge, checkpoint=path, **options).write, whole.write)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"source": "current"}, "differs in source"),
            ({"steps": 10, "seed": 1}, "differs in seed, steps"),
            ({"texts": random_texts(seed=1)}, "differs in held_out_texts, texts"),
            ({"options": dataclasses.replace(SMALL, weight_decay=0.1)}, "differs in weight_decay"),
        ],
    )
    def test_another_training_is_refused(self, tmp_path, options, message):
        bridge = shared_bridge("llama")
        train(bridge, checkpoint=tmp_path / "training")
        with pytest.raises(ValueError, match=message):
            train(bridge, checkpoint=tmp_path / "training", **options)

    def test_other_files_are_refused(self, tmp_path):
        bridge = shared_bridge("llama")
        (tmp_path / "text").write_text("x")
        with pytest.raises(ValueError, match="is not a saved training"):
            train(bridge, checkpoint=tmp_path / "text")
        random_write(bridge).save(tmp_path / "write")
        with pytest.raises(ValueError, match="not of a saved training"):
            train(bridge, checkpoint=tmp_path / "write")


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
        whole = torch.randint(4, D_VOCAB, (1, 6))
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
            assert list(trace.y) == frame["change"].tolist()
        assert "layer 1, source true" in figure.layout.title.text

    def test_half_precision_models_train_in_float32(self):
        result = train(tiny_bridge("llama", dtype=torch.bfloat16), steps=2)
        assert result.write.up.dtype == torch.float32
        assert result.curve["loss"].notna().all()


class TestLeftAsFound:
    def test_flags_and_hooks_also_after_an_exception(self, monkeypatch):
        bridge = tiny_bridge("llama")
        for i, parameter in enumerate(bridge.original_model.parameters()):
            parameter.requires_grad_(i % 2 == 0)
        with left_as_found(bridge):
            train(bridge)

        def fails(self):
            raise RuntimeError("in the middle of it")

        monkeypatch.setattr(write_training.TrainingState, "save", fails)
        monkeypatch.setattr(torch.optim.AdamW, "step", fails)
        with left_as_found(bridge), pytest.raises(RuntimeError, match="in the middle of it"):
            train(bridge)
        assert all(parameter.grad is None for parameter in bridge.original_model.parameters())

    def test_it_trains_where_gradients_are_off(self):
        bridge = shared_bridge("llama")
        with torch.no_grad():
            without = train(bridge)
            assert not torch.is_grad_enabled()
        assert_same_bits(without.write, train(bridge).write)


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"rank": 0}, "rank must be from 1 to the model's width 32"),
            ({"rank": 33}, "rank must be"),
            ({"steps": 0}, "steps and save_every must be at least 1"),
            ({"layer": 3}, "blocks 0 to 2, the patch asks for 3"),
            ({"layer": (1, 1)}, "names a block twice"),
            ({"texts": [[5, 6, 7]]}, "1 windows of 12 tokens to train on and 0 to hold out"),
            ({"texts": [[5, 6, 7]], "held_out": [[5]]}, "1 windows .* and 0 to hold out"),
            (
                {"source": "constant", "options": dataclasses.replace(SMALL, bias=False)},
                "the bias alone, but bias is False",
            ),
        ],
    )
    def test_what_makes_no_sense(self, options, message):
        with pytest.raises(ValueError, match=message):
            train(shared_bridge("llama"), **options)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"batch_size": 0}, "batch_size must be at least 1"),
            ({"patience": 0}, "patience must be at least 1"),
            ({"window": 1}, "at least 2 tokens"),
            ({"learning_rate": 0.0}, "must be above 0"),
            ({"warmup": 1.0}, "share of the steps"),
        ],
    )
    def test_options_that_make_no_sense(self, fields, message):
        with pytest.raises(ValueError, match=message):
            li.TrainingOptions(**fields)

    def test_one_text_is_not_texts(self):
        with pytest.raises(TypeError, match="put it in a list"):
            train(shared_bridge("llama"), "the people say")

    def test_training_mode(self):
        bridge = tiny_bridge("llama")
        bridge.original_model.train()
        with pytest.raises(ValueError, match=r"call bridge\.eval\(\)"):
            train(bridge)

    def test_hooks_on_the_blocks_trained_through(self):
        bridge = tiny_bridge("llama")
        with (
            bridge.hooks(fwd_hooks=[("blocks.2.hook_resid_pre", lambda resid, hook: resid)]),
            pytest.raises(ValueError, match=r"a hook on blocks\.2\.hook_"),
        ):
            train(bridge)

    def test_models_that_the_two_streams_do_not_fit(self):
        with pytest.raises(NotImplementedError, match="does not run two copies"):
            train(shared_bridge("gpt_neo"))
