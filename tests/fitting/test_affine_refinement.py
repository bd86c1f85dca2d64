"""Refinement against autograd, and against the lens's own reading of held-out text."""

import pytest
import torch

from lens_interventions.fitting.affine_fit import fit_affine_lens
from lens_interventions.fitting.affine_refinement import _kl_and_gradient, refine_affine_lens
from lens_interventions.lens.aggregate import lens_over
from lens_interventions.model.readout import readout
from tests.support.clean import left_as_found
from tests.support.corpora import random_texts
from tests.support.tiny import D_VOCAB, shared_bridge


@pytest.mark.parametrize("arch", ["llama", "gemma2", "cohere"])
def test_refinement_lowers_held_out_kl_at_every_layer(arch):
    """Gemma 2 caps its logits, Cohere multiplies them: the gradient goes through both."""
    bridge, texts = shared_bridge(arch), random_texts(80)
    lens = fit_affine_lens(bridge, texts, full_length=False, progress=False)
    with left_as_found(bridge), torch.no_grad():
        refined = refine_affine_lens(
            bridge,
            lens,
            texts,
            steps=16,
            learning_rate=2e-3,  # few steps, so larger ones
            held_out=240,
            evaluate_every=8,
            progress=False,
        )
    history = refined.settings["refined"]["held_out_kl"]
    assert history[-1] < 0.99 * history[0]
    # Whole windows of 23 tokens after their first, until 256 with their firsts are reached.
    assert refined.settings["refined"]["tokens"] == 16 * 11 * 23
    assert refined.name == "affine lens, 1656 tokens, refined"
    # The same tokens, read by the lens itself: ten texts of 24 tokens, without their first.
    held_out = texts[:10]
    options = {"positions": (1, None), "progress": False}
    for fitted, expected in ((lens, history[0]), (refined, history[-1])):
        kl = lens_over(bridge, held_out, lens=fitted, **options).means("kl_final")
        assert kl[:-1].mean() == pytest.approx(expected, rel=1e-9)
    first = lens_over(bridge, held_out, lens=lens, **options).means("kl_final")
    last = lens_over(bridge, held_out, lens=refined, **options).means("kl_final")
    assert (last <= first + 1e-9).all()


def test_the_gradient_of_refinement_is_that_of_autograd():
    for arch in ("llama", "gemma2", "cohere"):
        head = readout(shared_bridge(arch))
        generator = torch.Generator().manual_seed(3)
        normalized = torch.randn(5, 32, dtype=torch.float64, generator=generator)
        target = torch.randn(5, D_VOCAB, dtype=torch.float64, generator=generator).softmax(-1)
        leaf = normalized.clone().requires_grad_()
        expected = -(target * head.logits(leaf).log_softmax(-1)).sum(-1)
        expected.sum().backward()
        kl, gradient = _kl_and_gradient(head, normalized, target, torch.empty_like(target))
        torch.testing.assert_close(kl, expected.detach(), rtol=0, atol=1e-12)
        torch.testing.assert_close(gradient, leaf.grad, rtol=0, atol=1e-12)


def test_refinement_refuses_too_little_text():
    bridge = shared_bridge("llama")
    lens = fit_affine_lens(bridge, random_texts(20), progress=False)
    with pytest.raises(ValueError, match="480 tokens of text leave none to train on after 1024"):
        refine_affine_lens(bridge, lens, random_texts(20), progress=False)
    for name in ("steps", "batch", "evaluate_every"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            refine_affine_lens(bridge, lens, random_texts(20), progress=False, **{name: 0})
