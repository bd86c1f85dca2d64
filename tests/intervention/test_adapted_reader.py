"""An adapted reader: a changed model for as long as it is on, and the same model after."""

import dataclasses

import pytest
import torch

import lens_interventions as li
from lens_interventions.intervention.adapted_reader import AdaptedReader, adapted_modules
from lens_interventions.model.fingerprint import fingerprint
from lens_interventions.model.other_weights import matrix
from tests.support.clean import left_as_found
from tests.support.exact import tolerance
from tests.support.tiny import random_tokens, shared_bridge, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact")

PATCH = li.NextTokenPatch(layer=1, strength=0.3, mode="add", scale="norm")
# Joint and split matrices, grouped heads, windows, norms of queries, and TransformerLens's own run.
ARCHITECTURES = ["gpt2", "gpt_neox", "llama", "qwen3", "gemma2", "falcon"]
MLP = "attention+mlp"
# Transposed matrices, without a gate and with one, joint with it, and a block as its own MLP.
WITH_MLP = ["gpt2", "gpt_neox", "llama", "phi3", "opt"]


def random_reader(bridge, layer=1, rank=3, adapt="attention"):
    """A reader that changes every matrix from a layer up by about a third."""
    matrices = {key: matrix(m) for key, m in adapted_modules(bridge, adapt, layer).items()}
    return li.AdaptedReader(
        down={key: 0.2 * torch.randn(rank, m.shape[1]) for key, m in matrices.items()},
        up={key: 0.5 * torch.randn(m.shape[0], rank) for key, m in matrices.items()},
        fingerprint=fingerprint(bridge),
    )


def edited(arch, reader, adapt="attention", **options):
    """A model of its own whose weights were edited by hand as the reader says."""
    bridge = tiny_bridge(arch, **options)
    with torch.no_grad():
        for key, linear in adapted_modules(bridge, adapt, 1).items():
            change = (reader.up[key] @ reader.down[key]).to(linear.weight.dtype)
            linear.weight += change if change.shape == linear.weight.shape else change.T
    return bridge


@pytest.mark.parametrize(
    ("arch", "adapt"),
    [*((arch, "attention") for arch in ARCHITECTURES), *((arch, MLP) for arch in WITH_MLP)],
)
@torch.no_grad()
def test_with_a_reader_on_every_run_is_that_of_an_edited_model(arch, adapt):
    bridge = shared_bridge(arch)
    reader, tokens = random_reader(bridge, adapt=adapt), random_tokens(2, 9)
    other = edited(arch, reader, adapt)
    plain = bridge(tokens)
    with left_as_found(bridge), reader.on(bridge):
        found = li.teacher_forced_logits(bridge, tokens, [PATCH, None])
        lens = li.logit_lens(bridge, tokens).entropy
        new = li.generate(bridge, [[5, 6, 7], [9, 8]], PATCH, max_new_tokens=6, stop_at_eos=False)
        for stop in (1, 4, 9):
            prefix = tokens[:, :stop]
            alone = bridge.run_with_hooks(prefix, fwd_hooks=PATCH.fwd_hooks(bridge, prefix))
            torch.testing.assert_close(
                found[0, :, stop - 1], alone[:, -1], rtol=0, atol=tolerance(arch)
            )
        for row, prompt in enumerate(([5, 6, 7], [9, 8])):
            whole = [*prompt, *new.tokens[row].tolist()]
            log_probs = li.teacher_forced_log_probs(bridge, whole, PATCH)[0]
            torch.testing.assert_close(
                new.log_probs[row], log_probs[len(prompt) - 1 :], rtol=0, atol=tolerance(arch)
            )
    expected = li.teacher_forced_logits(other, tokens, [PATCH, None])
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance(arch))
    torch.testing.assert_close(lens, li.logit_lens(other, tokens).entropy)
    assert (found[1] - plain).abs().max() > 0.1
    torch.testing.assert_close(bridge(tokens), plain, rtol=0, atol=0)


@pytest.mark.parametrize("arch", WITH_MLP)
@torch.no_grad()
def test_each_matrix_of_an_mlp_counts(arch):
    """Where TransformerLens splits a joint matrix, it must also run the parts."""
    bridge, tokens = shared_bridge(arch), random_tokens(2, 9)
    reader, plain = random_reader(bridge, layer=2, adapt=MLP), bridge(tokens)
    keys = [key for key in reader.up if key not in ("2.q", "2.k", "2.v")]
    assert {"2.in", "2.out"} <= set(keys) <= {"2.in", "2.out", "2.gate"}
    for key in keys:
        parts = {"down": {key: reader.down[key]}, "up": {key: reader.up[key]}}
        with dataclasses.replace(reader, **parts).on(bridge):
            assert (bridge(tokens) - plain).abs().max() > 0.01


@torch.no_grad()
@pytest.mark.usefixtures("always_faster")
def test_faster_products_are_of_the_weights_that_are_on():
    bridge = tiny_bridge("llama", dtype=torch.float32)
    reader, prompts = random_reader(bridge), random_tokens(9, 4)

    def many(on):
        return li.generate(on, prompts, PATCH, max_new_tokens=17, stop_at_eos=False).log_probs

    before = many(bridge)
    with reader.on(bridge):
        adapted = many(bridge)
    expected = many(edited("llama", reader, dtype=torch.float32))
    torch.testing.assert_close(adapted[:, 0], expected[:, 0], rtol=0, atol=1e-4)
    torch.testing.assert_close(many(bridge), before, rtol=0, atol=0)


class TestLeftAsFound:
    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_the_weights_are_the_same_objects_after_an_exception(self, error):
        bridge = tiny_bridge("gpt2")
        reader = random_reader(bridge)
        before = dict(bridge.original_model.named_parameters())
        bits = {name: value.clone() for name, value in before.items()}
        with left_as_found(bridge), pytest.raises(error), reader.on(bridge):
            raise error
        after = dict(bridge.original_model.named_parameters())
        assert after.keys() == before.keys()
        assert all(after[name] is before[name] for name in before)
        assert all(torch.equal(after[name], bits[name]) for name in bits)
        assert fingerprint(bridge) == reader.fingerprint


class TestRefusals:
    def test_another_model(self):
        reader = random_reader(shared_bridge("llama"))
        with (
            pytest.raises(ValueError, match="this reader was trained on weights"),
            reader.on(tiny_bridge("llama", seed=1)),
        ):
            pass

    def test_a_second_reader(self):
        bridge = shared_bridge("llama")
        reader = random_reader(bridge)
        with (
            reader.on(bridge),
            pytest.raises(ValueError, match="without another reader"),
            reader.on(bridge),
        ):
            pass
        with (
            reader.on(bridge),
            pytest.raises(ValueError, match="on this model already"),
            random_reader(bridge).on(bridge),
        ):
            pass

    def test_a_matrix_that_the_model_does_not_have(self):
        bridge = shared_bridge("llama")
        reader = random_reader(bridge)
        wide = {**reader.up, "2.q": torch.zeros(48, 3)}
        with (
            pytest.raises(ValueError, match=r"no 2\.q of shape \(48, 32\)"),
            dataclasses.replace(reader, up=wide).on(bridge),
        ):
            pass

    def test_experts(self):
        with pytest.raises(NotImplementedError, match=r"has no linear module mlp\.gate"):
            adapted_modules(shared_bridge("mixtral"), MLP, 1)


@pytest.mark.parametrize("adapt", ["attention", MLP])
def test_its_name_is_that_of_the_saved_one(adapt):
    reader = random_reader(shared_bridge("llama"), adapt=adapt)
    tensors = {name: tensor.double() for name, tensor in reader.tensors().items()}
    again = li.AdaptedReader.from_tensors(tensors, reader.fingerprint)
    assert again.name == reader.name
    tensors["up.1.q"][0, 0] += 1
    assert li.AdaptedReader.from_tensors(tensors, reader.fingerprint).name != reader.name


def test_the_same_updates_of_other_weights_are_another_reader():
    parts = {"down.1.q": torch.ones(2, 6), "up.1.q": torch.ones(6, 2)}
    one, other = (AdaptedReader.from_tensors(parts, of) for of in ("these", "those"))
    assert one.name != other.name
