"""Training a reader: its gradient, what it learns where that is known, interruptions, its file."""

import dataclasses
import math

import pytest
import torch

import lens_interventions as li
from lens_interventions.intervention.adapted_reader import adapted_weights
from lens_interventions.intervention.known_text import KnownText
from lens_interventions.intervention.training import loop
from lens_interventions.intervention.training.loss import patched_losses
from lens_interventions.intervention.training.reader_parameters import ReaderParameters
from lens_interventions.model.gradients import frozen
from lens_interventions.model.other_weights import other_weights
from lens_interventions.model.tokens import token_batch
from tests.support.clean import left_as_found
from tests.support.planted_copying import N_CTX, ablated_bridge, key_value_texts
from tests.support.small_training import SMALL, assert_same_bits, random_texts, train
from tests.support.stopped import stopped
from tests.support.tiny import shared_bridge, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact")

READER = {"adapt": "attention", "adapter_rank": 2}


# Layer norms stay in float64, RMS norms round to float32: too coarse for differences of 1e-5.
@pytest.mark.parametrize("adapt", ["attention", "attention+mlp"])
@pytest.mark.parametrize("arch", ["gpt2", "gpt_neox"])
def test_its_gradient_is_that_of_finite_differences(arch, adapt):
    bridge = shared_bridge(arch)
    patch = li.NextTokenPatch(layer=1, strength=0.5, mode="add").bind(bridge)
    parameters = ReaderParameters(bridge, adapt, 1, rank=2, seed=0)
    with torch.no_grad():
        for leaf in parameters.leaves.values():
            leaf.copy_(0.3 * torch.randn_like(leaf))
    batch = token_batch(bridge, random_texts(3))
    text = KnownText.from_batch(batch)
    with torch.no_grad():
        resid = bridge(batch.tokens, stop_at_layer=1)

    def nats(leaves, backward=None):
        reader = parameters.reader(leaves)
        weights = adapted_weights(bridge, reader.down, reader.up)
        with other_weights(bridge, weights, "tried"):
            return patched_losses(bridge, patch, resid, text, backward=backward)[0]

    with frozen(bridge), left_as_found(bridge):
        nats(parameters.leaves, backward=0.25)
        for name, leaf in parameters.leaves.items():
            direction = torch.randn_like(leaf)
            up, down = (
                nats({**parameters.leaves, name: leaf.detach() + sign * 1e-5 * direction}).sum()
                for sign in (1, -1)
            )
            expected = (leaf.grad * direction).sum()
            # Differences of a loss of 100 nats are good to 1e-8 of it.
            torch.testing.assert_close(expected, 0.25 * (up - down) / 2e-5, rtol=1e-6, atol=1e-7)


class TestPlanted:
    """Copying that was ablated: a weak write of the true token brings some of it back."""

    OPTIONS = li.TrainingOptions(
        window=N_CTX, batch_size=8, evaluate_every=8, learning_rate=0.01, patience=None
    )

    def change(self, source):
        """Change of the held-out loss before the reader is trained, and the lowest after."""
        result = li.train_patch(
            ablated_bridge(),
            key_value_texts(80, seed=1),
            layer=1,
            source=source,
            strength=0.05,
            steps=24,
            adapt="attention",
            adapter_rank=16,
            options=self.OPTIONS,
            progress=False,
        )
        change = result.held_out["change"]
        return change[0], change.min()

    def test_the_reader_learns_to_make_more_of_the_true_token(self):
        before, after = self.change("true")
        assert after < before - 0.02 < -0.1

    def test_without_news_there_is_nothing_to_read(self):
        # The model as it is has the lowest expected loss.
        assert min(self.change("zero")) > -0.005


def test_a_fixed_write_is_a_plain_patch_to_the_adapted_model():
    bridge = shared_bridge("llama")
    options = dataclasses.replace(SMALL, scale="norm", first_position=0)
    result = train(bridge, strength=0.3, options=options, **READER)
    plain = li.NextTokenPatch(layer=1, strength=0.3, mode="add", scale="norm")
    tokens = torch.tensor([random_texts()[9]])
    with result.reader.on(bridge), torch.no_grad():
        found, expected = li.teacher_forced_logits(bridge, tokens, [result.patch, plain])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_the_held_out_loss_is_that_of_the_adapted_model():
    bridge, texts = shared_bridge("llama"), random_texts(4)
    result = train(bridge, texts, held_out=texts, **READER)
    best = result.held_out.loc[result.held_out["loss"].idxmin()]
    assert best["step"] > 0
    with result.reader.on(bridge):
        log_probs = li.teacher_forced_log_probs(bridge, texts, result.patch)
    assert -float(log_probs.nanmean()) == pytest.approx(best["loss"], abs=1e-9)
    plain = -float(li.teacher_forced_log_probs(bridge, texts, None).nanmean())
    assert best["clean_loss"] == pytest.approx(plain, abs=1e-9)


def test_a_control_without_a_write_begins_as_the_model_itself():
    bridge, texts = shared_bridge("llama"), random_texts(4)
    result = train(bridge, texts, held_out=texts, source="zero", strength=1.0, **READER)
    assert result.held_out["change"][0] == pytest.approx(0, abs=1e-12)
    assert result.held_out["change"].min() < -1e-4
    with result.reader.on(bridge), torch.no_grad():
        tokens = torch.tensor([texts[3]])
        patched, none = li.teacher_forced_logits(bridge, tokens, [result.patch, None])
    torch.testing.assert_close(patched, none, rtol=0, atol=0)


@pytest.mark.parametrize("adapt", ["attention", "attention+mlp"])
def test_interrupted_training_ends_in_the_same_bits(tmp_path, adapt):
    bridge, path = shared_bridge("gpt2"), tmp_path / "training"
    options = {"steps": 7, **READER, "adapt": adapt}
    whole = train(bridge, **options)
    # While the model is adapted.
    with stopped(loop, "patched_losses", call=6), left_as_found(bridge):
        train(bridge, checkpoint=path, save_every=2, **options)
    assert path.exists()
    finished = train(bridge, checkpoint=path, save_every=2, **options)
    assert finished.curve.equals(whole.curve)
    assert_same_bits(finished.write, whole.write)
    assert finished.reader.name == whole.reader.name
    with pytest.raises(ValueError, match="differs in adapter_rank"):
        train(bridge, checkpoint=path, **{**options, "adapter_rank": 3})


@pytest.mark.parametrize("adapt", ["attention", "attention+mlp"])
def test_it_is_saved_with_the_write(tmp_path, adapt):
    bridge = tiny_bridge("llama", dtype=torch.float32)
    result = train(bridge, steps=3, **{**READER, "adapt": adapt})
    result.write.save(tmp_path / "write")
    loaded = li.LearnedWrite.load(tmp_path / "write")
    tokens = torch.tensor([random_texts()[9]])
    with torch.no_grad():
        with result.reader.on(bridge):
            expected = li.teacher_forced_logits(bridge, tokens, result.patch)
        with loaded.reader.on(bridge):
            found = li.teacher_forced_logits(bridge, tokens, loaded.patch())
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


class TestRefusals:
    def test_a_write_without_its_reader(self):
        bridge = shared_bridge("llama")
        result = train(bridge, steps=2, **READER)
        with pytest.raises(ValueError, match=r"use it inside `with write\.reader\.on\(bridge\)"):
            li.teacher_forced_log_probs(bridge, [5, 6, 7], result.patch)
        other = train(bridge, steps=2, seed=1, **READER)
        with other.reader.on(bridge), pytest.raises(ValueError, match="trained on tiny-llama with"):
            li.teacher_forced_log_probs(bridge, [5, 6, 7], result.patch)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"strength": 0.3}, "leaves nothing to train"),
            (
                {
                    "strength": 0.3,
                    "adapt": "attention",
                    "options": li.TrainingOptions(input_gate=True),
                },
                "which no gate scales",
            ),
            ({"adapt": "mlp"}, "adapt must be 'attention' or 'attention\\+mlp'; got 'mlp'"),
            ({"adapter_rank": 2}, "is the rank of what adapt= trains: give adapt="),
            ({"adapt": "attention", "adapter_rank": 0}, "adapter_rank must be from 1 to"),
            ({"adapt": "attention", "strength": math.nan}, "strength must be finite, got nan"),
        ],
    )
    @pytest.mark.usefixtures("as_users_run")
    def test_what_makes_no_sense(self, options, message):
        with pytest.raises(ValueError, match=message):
            train(shared_bridge("llama"), **options)

    @pytest.mark.usefixtures("as_users_run")
    def test_a_strength_that_is_no_number(self):
        with pytest.raises(TypeError, match="strength must be a number, got str 'a'"):
            train(shared_bridge("llama"), adapt="attention", strength="a")

    def test_a_reader_upon_a_reader(self):
        bridge = shared_bridge("llama")
        reader = train(bridge, steps=1, **READER).reader
        with reader.on(bridge), pytest.raises(ValueError, match="a reader is on the bridge"):
            train(bridge, **READER)


def test_every_matrix_starts_from_draws_of_its_own():
    options = dataclasses.replace(SMALL, learning_rate=1e-300)
    reader = train(
        shared_bridge("llama"), steps=1, options=options, adapt="attention+mlp", adapter_rank=4
    ).write.reader
    rows = [row for down in reader.down.values() for row in down if len(row) == 32]
    assert len(reader.down) == 12
    assert len(rows) == 4 * 10  # all but the two matrices that write to the stream
    cosines = torch.nn.functional.cosine_similarity(
        torch.stack(rows)[:, None], torch.stack(rows)[None], dim=-1
    )
    # Of 32 normal numbers: 5 standard deviations of 1 / sqrt(32).
    assert cosines.fill_diagonal_(0).abs().max() < 0.88
