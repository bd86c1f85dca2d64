"""Training a patch: what it finds where that is known, what it leaves behind, what it refuses."""

import dataclasses
import math

import numpy as np
import pytest
import torch

import lens_interventions as li
from lens_interventions.intervention.training.state import TrainingState
from lens_interventions.measures.intervals import mean_interval
from tests.support.clean import left_as_found
from tests.support.planted_copying import N_CTX, ablated_bridge, key_value_texts
from tests.support.small_training import (
    SMALL,
    assert_same_bits,
    random_texts,
    train,
)
from tests.support.tiny import shared_bridge, tiny_bridge

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

    @pytest.mark.parametrize("source", ["current", "zero"])
    def test_no_news_is_not(self, source):
        result = self.result(source)
        # Held-out text never gains at any time, so that the best write is none.
        assert result.held_out["change"].min() >= -1e-12
        assert result.curve["gradient_norm"].min() > 0
        (changes,) = self.changes(result.patch)
        assert self.interval(changes).high >= 0


class TestIncrement:
    """Training on top of a base, which stays as it is."""

    def test_it_begins_where_the_base_ended_and_leaves_it(self):
        bridge = shared_bridge("llama")
        first = train(bridge, source="current")
        before = first.write.digest()
        result = train(bridge, base=first.write)
        end = first.held_out["loss"].min()
        assert result.held_out["loss"].iloc[0] == pytest.approx(end, abs=1e-12)
        assert result.write.base.digest() == before
        assert result.curve["gradient_norm"].min() > 0
        assert result.settings["base"] == before

    def test_the_true_token_is_learned_on_top_of_the_current_one(self):
        options = dataclasses.replace(TestPlanted.OPTIONS, evaluate_every=10)
        common = {"layer": 1, "rank": 16, "options": options, "progress": False}
        texts = key_value_texts(80, seed=1)
        base = li.train_patch(ablated_bridge(), texts, source="current", steps=10, **common).write
        losses = {
            source: li.train_patch(
                ablated_bridge(), texts, source=source, base=base, steps=30, **common
            ).held_out["loss"]
            for source in ("true", "shuffled")
        }
        assert losses["true"].iloc[0] == losses["shuffled"].iloc[0]
        assert losses["true"].min() < losses["true"].iloc[0] - 0.1
        assert losses["shuffled"].min() > losses["shuffled"].iloc[0] - 0.02

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            ({"layer": 2}, r"the base must have the layers, .* it has \(\(1,\)"),
            ({"options": dataclasses.replace(SMALL, scale="norm")}, "the base must have"),
            ({"adapt": "attention"}, "a base cannot be combined with a reader"),
        ],
    )
    def test_a_base_that_does_not_fit(self, other, message):
        bridge = shared_bridge("llama")
        base = train(bridge, source="current", steps=1).write
        with pytest.raises(ValueError, match=message):
            train(bridge, base=base, **other)

    def test_a_base_of_another_model(self):
        base = train(shared_bridge("llama"), source="current", steps=1).write
        with pytest.raises(ValueError, match="this write was trained on"):
            train(tiny_bridge("llama", seed=1), base=base)


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


@pytest.mark.usefixtures("as_users_run")
def test_numbers_of_numpy_are_numbers(llama, tmp_path):
    options = {"layer": 1, "rank": 2, "steps": 2, "seed": 3}
    of_numpy = {name: np.int64(number) for name, number in options.items()}
    result = train(llama, checkpoint=tmp_path / "checkpoint", **of_numpy)
    assert_same_bits(result.write, train(llama, **options).write)
    result.write.save(tmp_path / "write")
    assert li.LearnedWrite.load(tmp_path / "write").settings["seed"] == 3


@pytest.mark.usefixtures("as_users_run")
def test_the_rank_fits_a_narrow_model_unless_it_is_given(llama):
    made = li.train_patch(llama, random_texts(), layer=1, steps=2, options=SMALL, progress=False)
    assert made.write.settings["rank"] == llama.cfg.d_model == 32
    assert train(llama, rank=None, steps=2).write.settings["rank"] is None


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"rank": 0}, "rank must be at least 1"),
            ({"rank": 33}, "rank must be from 1 to the model's width 32"),
            ({"steps": 0}, "steps must be at least 1"),
            ({"layer": 3}, "blocks 0 to 2, the patch asks for 3"),
            ({"layer": (1, 1)}, "names a block twice"),
            (
                # Of 12 tokens the last is predicted at position 10, which is not patched then.
                {"options": dataclasses.replace(SMALL, first_position=10)},
                "begins at position 10 .* of at most 12 tokens .* prediction is at position 10",
            ),
            ({"texts": [[5, 6, 7]]}, "1 piece of 12 tokens to train on and 0 to hold out"),
            ({"texts": [[5, 6, 7]], "held_out": [[5]]}, "no text of held_out has two tokens"),
            ({"held_out": [[5, 999]]}, "held_out: text 0: token ids must be in"),
            # Nothing would be written there, and no step would be better than the first.
            ({"held_out": [[5, 6, 7]]}, "pieces of at most 3 tokens to hold out"),
            (
                {
                    "preserve": [[5, 6, 7]] * 20,
                    "options": dataclasses.replace(SMALL, change_penalty=1.0),
                },
                "preserve: the write begins at position 1 .* at most 3 tokens to train on",
            ),
            (
                {"source": "zero", "options": dataclasses.replace(SMALL, bias=False)},
                "only the bias, but bias is False",
            ),
        ],
    )
    def test_what_makes_no_sense(self, options, message):
        with pytest.raises(ValueError, match=message):
            train(shared_bridge("llama"), **options)

    def test_the_last_position_where_a_write_can_begin(self, llama):
        options = dataclasses.replace(SMALL, first_position=9)
        assert train(llama, options=options).curve["gradient_norm"].gt(0).any()

    def test_an_embedding_that_the_model_transforms(self):
        bridge = tiny_bridge("llama")
        bridge.add_perma_hook("hook_embed", lambda tensor, hook: tensor.cumsum(-1))
        with pytest.raises(NotImplementedError, match="embedding='W_U'"):
            train(bridge)
        result = train(bridge, options=dataclasses.replace(SMALL, embedding="W_U"))
        assert result.held_out["change"].abs().max() > 0

    def test_a_loss_that_is_no_number(self):
        bridge = tiny_bridge("llama", dtype=torch.float32)
        with pytest.raises(ValueError, match="the held-out loss is nan after 0 steps") as caught:
            train(bridge, strength=1e300, adapt="attention")  # infinite in float32
        assert caught.value.best is None

    @pytest.mark.parametrize("lasting", [True, False])
    def test_hooks_that_a_checkpoint_or_a_store_could_not_record(self, lasting, tmp_path):
        bridge = tiny_bridge("llama")
        bridge.add_hook("blocks.0.hook_mlp_out", lambda out, hook: out / 2, is_permanent=lasting)
        for kept in ({"checkpoint": tmp_path / "partial"}, {"store": li.ResidualStore()}):
            with pytest.raises(ValueError, match="would go into the store or checkpoint"):
                train(bridge, **kept)
        train(bridge)

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
