"""Refinement against autograd, and against the lens's own reading of held-out text."""

import dataclasses
import math

import pytest
import torch

from lens_interventions.fitting import affine_refinement
from lens_interventions.fitting.affine_fit import fit_affine_lens
from lens_interventions.fitting.affine_refinement import _kl_and_gradient, refine_affine_lens
from lens_interventions.lens.lens_over import lens_over
from lens_interventions.model.readout import readout
from tests.support.clean import left_as_found
from tests.support.corpora import random_texts, residual_rows
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
        kl, gradient = _kl_and_gradient(
            head, normalized, target, torch.empty_like(target), backward=True
        )
        torch.testing.assert_close(kl, expected.detach(), rtol=0, atol=1e-12)
        torch.testing.assert_close(gradient, leaf.grad, rtol=0, atol=1e-12)


def test_refinement_is_adamw_on_texts_after_the_held_out_with_each_map_clipped_alone():
    """A loop with autograd, for three steps that each take both texts that are trained on."""
    bridge, texts = shared_bridge("llama"), random_texts(3)
    lens = fit_affine_lens(bridge, random_texts(20, seed=2), progress=False)
    # One map makes residuals so short that its gradient alone is clipped.
    weight, bias = lens.weight.clone(), lens.bias.clone()
    weight[1], bias[1] = -0.95 * torch.eye(32), 0
    lens = dataclasses.replace(lens, weight=weight, bias=bias)
    steps, rate = 3, 1e-3
    refined = refine_affine_lens(
        bridge,
        lens,
        texts,
        steps=steps,
        learning_rate=rate,
        held_out=24,
        batch=48,
        evaluate_every=1,
        patience=steps,
        progress=False,
    )

    other, rows = (
        [torch.from_numpy(each) for each in residual_rows(bridge, part)]
        for part in (texts[:1], texts[1:])
    )
    size = other[-1].square().mean().sqrt()

    def log_probs(r):
        return bridge.unembed(bridge.ln_final(r[None]))[0].log_softmax(-1)

    def weights_of(layer):
        """In coordinates of unit variance, around the mean of the held-out text."""
        matrix = change[layer] * size / other[layer].std(0)[:, None]
        bias = shift[layer] * size - other[layer].mean(0) @ matrix
        return lens.weight[layer] + matrix, lens.bias[layer] + bias

    def kl(layer, streams):
        matrix, bias = weights_of(layer)
        r = streams[layer]
        final = log_probs(streams[-1]).detach()
        return (final.exp() * (final - log_probs(r + r @ matrix + bias))).sum(-1).mean()

    layers = range(len(lens.weight))
    change = [torch.zeros(32, 32, dtype=torch.float64, requires_grad=True) for _ in layers]
    shift = [torch.zeros(32, dtype=torch.float64, requires_grad=True) for _ in layers]
    optimizer = torch.optim.AdamW([*change, *shift])
    best, history = [], []
    for step in range(steps + 1):
        for layer in layers:
            now = float(kl(layer, other).detach()), *(each.detach() for each in weights_of(layer))
            if step == 0:
                best.append(now)
            elif now[0] < best[layer][0]:
                best[layer] = now
        history.append(sum(each[0] for each in best) / len(best))
        optimizer.zero_grad()
        for layer in layers:
            maps = [change[layer], shift[layer]]
            kl(layer, rows).backward(inputs=maps)
            torch.nn.utils.clip_grad_norm_(maps, 1.0)
        # A warm-up of a tenth of the steps, which is none of three, and then a cosine.
        optimizer.param_groups[0]["lr"] = (
            rate * 0.5 * (1 + math.cos(math.pi * max(0, step - 1) / 2))
        )
        optimizer.step()
    # Llama's norm rounds to float32, and torch's clipping divides by the norm plus 1e-6.
    assert refined.settings["refined"]["held_out_kl"] == pytest.approx(history, rel=1e-6)
    for layer in layers:
        torch.testing.assert_close(refined.weight[layer], best[layer][1], rtol=0, atol=1e-5)
        torch.testing.assert_close(refined.bias[layer], best[layer][2], rtol=0, atol=1e-5)


def test_a_step_takes_no_window_twice():
    bridge, texts = shared_bridge("llama"), random_texts(20)
    lens = fit_affine_lens(bridge, texts, full_length=False, progress=False)
    options = {"steps": 2, "held_out": 240, "evaluate_every": 2, "progress": False}
    refined = refine_affine_lens(bridge, lens, texts, batch=10**6, **options)
    # Of 20 texts of 24 tokens 10 are held out.
    assert refined.settings["refined"]["tokens"] == 2 * 10 * 23


def test_refinement_refuses_too_little_text():
    bridge = shared_bridge("llama")
    lens = fit_affine_lens(bridge, random_texts(20), progress=False)
    with pytest.raises(ValueError, match="480 tokens of text leave none to train on after 1024"):
        refine_affine_lens(bridge, lens, random_texts(20), progress=False)
    for name in ("steps", "batch", "evaluate_every"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            refine_affine_lens(bridge, lens, random_texts(20), progress=False, **{name: 0})


def test_two_rows_at_least_are_held_out():
    """Of one row there is no spread to scale the maps by."""
    bridge, texts = shared_bridge("llama"), random_texts(20)
    lens = fit_affine_lens(bridge, texts, progress=False)
    given = [texts[0][:2], *texts[1:]]
    refined = refine_affine_lens(
        bridge,
        lens,
        given,
        held_out=1,
        steps=8,
        learning_rate=2e-3,
        evaluate_every=1,
        patience=8,
        progress=False,
    )
    assert (refined.weight != lens.weight).any()


def test_refinement_refuses_products_in_half_precision():
    bridge, texts = shared_bridge("llama", torch.float32), random_texts(20)
    lens = fit_affine_lens(bridge, texts, progress=False)
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(ValueError, match=r"float32 or float64: products are in torch\.bfloat16"),
    ):
        refine_affine_lens(bridge, lens, texts, held_out=64, steps=2, progress=False)


@pytest.mark.parametrize("point", ["ln_final.hook_out", "unembed.hook_out"])
def test_refinement_refuses_a_hook_that_it_would_pass_by(point):
    bridge = shared_bridge("llama")
    texts = random_texts(20)
    lens = fit_affine_lens(bridge, texts, progress=False)
    with (
        bridge.hooks(fwd_hooks=[(point, lambda value, hook: 0 * value)]),
        pytest.raises(ValueError, match=point),
    ):
        refine_affine_lens(bridge, lens, texts, held_out=64, steps=2, progress=False)


def refined(**options):
    bridge, texts = shared_bridge("llama"), random_texts(60)
    lens = fit_affine_lens(bridge, random_texts(20, seed=2), progress=False)
    given = {"steps": 4, "held_out": 48, "batch": 24, "evaluate_every": 1, "patience": 4}
    options = {**given, "learning_rate": 2e-3, "progress": False, **options}
    return refine_affine_lens(bridge, lens, texts, **options)


def test_residuals_that_are_not_finite_are_refused():
    bridge, texts = shared_bridge("llama", torch.float32), random_texts(40)
    lens = fit_affine_lens(bridge, texts, progress=False)

    def overflow(resid, hook):
        return resid.index_fill(1, torch.tensor([3]), torch.nan)

    with (
        bridge.hooks(fwd_hooks=[("blocks.2.hook_resid_pre", overflow)]),
        pytest.raises(ValueError, match=r"not finite .* at 2_pre, at position 3 of"),
    ):
        refine_affine_lens(bridge, lens, texts, held_out=30, progress=False)


def test_the_seed_orders_the_windows():
    first, again, other = (refined(seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)


def test_a_layer_that_diverged_keeps_its_best(monkeypatch):
    measure, calls = affine_refinement._Training.measure, []

    def diverged(self):
        found = measure(self)
        calls.append(found)
        if len(calls) == 2:
            found[1] = math.nan
        return found

    monkeypatch.setattr(affine_refinement._Training, "measure", diverged)
    history = refined().settings["refined"]["held_out_kl"]
    assert all(map(math.isfinite, history))
    assert history == sorted(history, reverse=True)
