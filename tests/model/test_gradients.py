"""Gradients that cannot be taken are asked for in words, before any work is done."""

import pytest
import torch

import lens_interventions as li
from tests.support.corpora import random_texts
from tests.support.kernels import kernels
from tests.support.tiny import tiny_bridge

PATCH = li.NextTokenPatch(layer=1, strength=0.1)
TEXTS = [text.tolist() for text in random_texts(8)]


def refine_affine_lens(bridge):
    with torch.inference_mode(False):
        lens = li.fit_affine_lens(bridge, TEXTS, holdout=3, progress=False)
    li.refine_affine_lens(bridge, lens, TEXTS, progress=False)


what_needs_gradients = pytest.mark.parametrize(
    ("caller", "call"),
    [
        ("slope_map", lambda bridge: li.slope_map(bridge, TEXTS)),
        ("head_slopes", lambda bridge: li.head_slopes(bridge, TEXTS, PATCH)),
        ("linear_ceiling", lambda bridge: li.linear_ceiling(bridge, TEXTS, TEXTS)),
        ("refine_affine_lens", refine_affine_lens),
        ("search_sequence", lambda bridge: li.search_sequence(bridge, TEXTS[0], 2)),
        ("train_patch", lambda bridge: li.train_patch(bridge, TEXTS, layer=1)),
        (
            "enable_grad=True",
            lambda bridge: li.teacher_forced_log_probs(bridge, TEXTS, PATCH, enable_grad=True),
        ),
        (
            "enable_grad=True",
            lambda bridge: li.teacher_forced_logits(bridge, TEXTS, PATCH, enable_grad=True),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)


@what_needs_gradients
def test_inference_mode_is_refused_by_what_needs_gradients(llama, caller, call):
    message = rf"^{caller} needs gradients: leave torch\.inference_mode$"
    with torch.inference_mode(), pytest.raises(ValueError, match=message):
        call(llama)


@pytest.fixture(scope="module")
def loaded_in_inference_mode():
    with torch.inference_mode():
        return tiny_bridge("llama")


@what_needs_gradients
def test_a_model_that_was_loaded_in_inference_mode_is_refused_and_left_alone(
    loaded_in_inference_mode, caller, call
):
    bridge = loaded_in_inference_mode
    before = [parameter.requires_grad for parameter in bridge.original_model.parameters()]
    message = rf"^{caller} needs gradients, and the model was loaded inside torch\.inference_mode"
    with pytest.raises(ValueError, match=message):
        call(bridge)
    assert [p.requires_grad for p in bridge.original_model.parameters()] == before


@what_needs_gradients
def test_kernels_are_refused_by_what_needs_gradients(llama, caller, call):
    message = f"^{caller} needs gradients, and transformers runs kernels in place of some modules"
    with kernels(llama), pytest.raises(ValueError, match=message):
        call(llama)


def loss_gradient(bridge, patch):
    """The gradient of a text's loss under a patch by a matrix of a block below it."""
    weight = bridge.original_model.model.layers[0].mlp.up_proj.weight
    losses = li.teacher_forced_log_probs(bridge, TEXTS[0], patch, enable_grad=True)
    return torch.autograd.grad(losses.sum(), weight)[0]


def test_a_lens_that_was_fitted_in_inference_mode_lets_gradients_through(llama):
    def fitted():
        return li.fit_affine_lens(llama, TEXTS, holdout=3, progress=False)

    with torch.inference_mode():
        inside = fitted()
    common = {"layer": 1, "strength": 0.1, "mode": "correct"}
    gradient = loss_gradient(llama, li.NextTokenPatch(lens=inside, **common))
    assert torch.equal(gradient, loss_gradient(llama, li.NextTokenPatch(lens=fitted(), **common)))


def test_a_write_that_was_loaded_in_inference_mode_lets_gradients_through(tmp_path):
    llama = tiny_bridge("llama", dtype=torch.float32)  # as in the file, so nothing is converted
    options = li.TrainingOptions(window=4, batch_size=2, held_out_windows=1, input_gate=True)
    trained = li.train_patch(
        llama, TEXTS, layer=1, steps=1, rank=2, options=options, progress=False
    )
    trained.write.save(tmp_path / "write")
    with torch.inference_mode():
        inside = li.LearnedWrite.load(tmp_path / "write")
    outside = li.LearnedWrite.load(tmp_path / "write")
    gradient = loss_gradient(llama, inside.patch())
    assert torch.equal(gradient, loss_gradient(llama, outside.patch()))
