"""Training a patch: the loss and its gradient, going on, what is left behind, refusals."""

import dataclasses

import pytest
import torch

import lens_interventions as li
from lens_interventions.intervention.known_text import KnownText
from lens_interventions.intervention.training import loop as write_training
from lens_interventions.intervention.training import loss as training_loss
from lens_interventions.intervention.training.corpus import visited
from lens_interventions.intervention.training.loss import patched_nats
from lens_interventions.intervention.training.state import TrainingState
from lens_interventions.model.gradients import frozen
from lens_interventions.model.readout import Readout
from lens_interventions.model.tokens import token_batch
from tests.intervention.test_learned_write import random_write
from tests.support.clean import left_as_found
from tests.support.small_training import (
    NO_STEPS,
    SMALL,
    assert_same_bits,
    random_texts,
    tensors,
    train,
)
from tests.support.tiny import random_tokens, shared_bridge, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact")


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

    def test_no_more_than_a_few_rows_of_logits_are_held(self, monkeypatch):
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


class TestLeftAsFound:
    def test_flags_and_hooks_also_after_an_exception(self, monkeypatch):
        bridge = tiny_bridge("llama")
        for i, parameter in enumerate(bridge.original_model.parameters()):
            parameter.requires_grad_(i % 2 == 0)
        with left_as_found(bridge):
            train(bridge)

        def fails(self):
            raise RuntimeError("in the middle of it")

        monkeypatch.setattr(TrainingState, "save", fails)
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
            ({"texts": [[5, 6, 7]]}, "1 pieces of 12 tokens to train on and 0 to hold out"),
            ({"texts": [[5, 6, 7]], "held_out": [[5]]}, "1 pieces .* and 0 to hold out"),
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
