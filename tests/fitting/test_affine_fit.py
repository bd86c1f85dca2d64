"""Affine lenses against least squares on materialized residuals, and where the truth is linear."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lens_interventions.fitting import corpus_moments, default_lens
from lens_interventions.fitting.affine_fit import fit_affine_lens
from lens_interventions.fitting.affine_refinement import _kl_and_gradient, refine_affine_lens
from lens_interventions.fitting.default_lens import default_affine_lens
from lens_interventions.fitting.shrinkage import unread_direction
from lens_interventions.intervention.patch import NextTokenPatch
from lens_interventions.intervention.teacher_forcing.log_probs import teacher_forced_log_probs
from lens_interventions.lens.affine import AffineLens
from lens_interventions.lens.aggregate import lens_over
from lens_interventions.lens.logit_lens import logit_lens
from lens_interventions.model._user_cache import CACHE_VARIABLE
from lens_interventions.model.fingerprint import fingerprint
from lens_interventions.model.readout import readout
from tests.support.clean import left_as_found
from tests.support.tiny import D_VOCAB, shared_bridge, tiny_bridge


def random_texts(n=60, length=24, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randint(4, D_VOCAB, (n, length), generator=generator))


def residual_rows(bridge, texts):
    """`r[l]` of every layer, `[token, d_model]`, first tokens left out, by run_with_cache."""
    streams = []
    for text in texts:
        _, cache = bridge.run_with_cache(text[None])
        names = [f"blocks.{layer}.hook_resid_pre" for layer in range(3)]
        streams.append([cache[name][0, 1:] for name in [*names, "blocks.2.hook_resid_post"]])
    return [torch.cat(rows).detach().numpy() for rows in zip(*streams, strict=True)]


@pytest.mark.parametrize("arch", ["gpt2", "llama", "gemma2"])
def test_the_closed_form_is_weighted_ridge_regression(arch):
    bridge = shared_bridge(arch)
    texts = random_texts()
    with left_as_found(bridge):
        lens = fit_affine_lens(bridge, texts, full_length=False, progress=False)
    fitted = [text for i, text in enumerate(texts, 1) if i % 10]
    rows = residual_rows(bridge, fitted)
    scale = 1 / np.linalg.norm(rows[-1], axis=-1, keepdims=True)
    for layer, ridge in enumerate(lens.settings["ridges"]):
        x = np.hstack([rows[layer], np.ones_like(scale)]) * scale
        y = (rows[-1] - rows[layer]) * scale
        # Ridge as least squares with one more row per coordinate, its size the coordinate's own.
        penalty = np.diag(np.sqrt(ridge) * np.linalg.norm(x, axis=0))
        stacked = np.vstack([x, penalty]), np.vstack([y, np.zeros((len(penalty), y.shape[1]))])
        solution = np.linalg.lstsq(*stacked, rcond=None)[0]
        np.testing.assert_allclose(lens.weight[layer], solution[:-1], rtol=0, atol=1e-9)
        np.testing.assert_allclose(lens.bias[layer], solution[-1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("arch", ["gpt2", "llama", "gemma2"])
def test_the_unread_direction_is_the_last_singular_vector_of_norm_and_unembedding(arch):
    bridge = shared_bridge(arch)
    norm = bridge.ln_final.original_component.weight
    scaled = (bridge.W_U.T * (1 + norm if arch == "gemma2" else norm)).detach().numpy()
    scaled -= scaled.mean(0)
    if arch == "gpt2":  # a LayerNorm takes out the mean, so a constant does not count
        scaled -= scaled.mean(1, keepdims=True)
    directions = np.linalg.svd(scaled)[2]
    expected = directions[-2 if arch == "gpt2" else -1]
    found = unread_direction(readout(bridge)).numpy()
    assert abs(found @ expected) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("arch", ["gpt2", "llama"])
def test_full_length_changes_biases_along_one_direction_until_outputs_are_long_enough(arch):
    bridge, texts = shared_bridge(arch), random_texts()
    plain = fit_affine_lens(bridge, texts, full_length=False, progress=False)
    lens = fit_affine_lens(bridge, texts, progress=False)
    assert torch.equal(lens.weight, plain.weight)
    direction = unread_direction(readout(bridge))
    added = lens.bias - plain.bias
    torch.testing.assert_close(added, torch.outer(added @ direction, direction), rtol=0, atol=1e-9)
    held_out = [text for i, text in enumerate(texts, 1) if i % 10 == 0]
    *streams, last = map(torch.tensor, residual_rows(bridge, held_out))
    for layer, stream in enumerate(streams):
        before, after = (
            float((each(stream, layer).square().sum(-1) / last.square().sum(-1)).mean())
            for each in (plain, lens)
        )
        assert before < 0.999, "nothing was missing, so nothing is tested"
        assert after == pytest.approx(1, abs=1e-9)


def test_the_fit_does_not_depend_on_batching():
    bridge = shared_bridge("llama")
    texts = random_texts(24)
    together = fit_affine_lens(bridge, [torch.stack(texts[i : i + 6]) for i in range(0, 24, 6)])
    alone = fit_affine_lens(bridge, texts, progress=False)
    torch.testing.assert_close(together.weight, alone.weight, rtol=0, atol=1e-9)


def test_where_the_later_layers_are_linear_the_lens_is_exact():
    bridge = tiny_bridge("llama")
    with torch.no_grad():
        for name, parameter in bridge.original_model.named_parameters():
            # Blocks that add nothing: from any of them on, the rest of the model is the identity.
            writes = "o_proj" in name or "down_proj" in name
            if writes and "layers.0" not in name:
                parameter.zero_()
    lens = fit_affine_lens(bridge, random_texts(), progress=False)
    trajectory = logit_lens(bridge, random_texts(1, seed=7)[0], lens=lens)
    assert trajectory.kl_final[1:].max() < 1e-9
    assert trajectory.kl_final[0].max() > 1e-2


def test_it_beats_the_raw_lens_on_other_text():
    bridge = shared_bridge("llama")
    lens = fit_affine_lens(bridge, random_texts(200), progress=False)
    other = random_texts(20, seed=9)
    options = {"positions": (1, None), "progress": False}
    raw = lens_over(bridge, other, **options).means("kl_final")
    fitted = lens_over(bridge, other, lens=lens, **options).means("kl_final")
    assert (fitted[:-1] < raw[:-1]).all()
    assert fitted[-1] == pytest.approx(0, abs=1e-12)


def test_round_trip_and_refusals(tmp_path):
    bridge, path = shared_bridge("llama"), tmp_path / "lens.safetensors"
    lens = fit_affine_lens(bridge, random_texts(20), progress=False)
    lens.save(path, dtype=torch.float64)
    loaded = AffineLens.load(path)
    torch.testing.assert_close(loaded.weight, lens.weight.float())
    torch.testing.assert_close(loaded.bias, lens.bias.float())
    assert loaded.fingerprint == fingerprint(bridge)
    assert loaded.settings == lens.settings
    with pytest.raises(ValueError, match="was fitted for tiny-llama"):
        logit_lens(tiny_bridge("llama", seed=5), [5, 6], lens=loaded)
    with pytest.raises(FileNotFoundError):
        AffineLens.load(tmp_path / "none")
    (tmp_path / "bad").write_text("x")
    with pytest.raises(ValueError, match="is not a saved lens"):
        AffineLens.load(tmp_path / "bad")
    with pytest.raises(ValueError, match="3 windows of text leave none"):
        fit_affine_lens(bridge, random_texts(3), progress=False)
    with pytest.raises(TypeError, match="put it in a list"):
        fit_affine_lens(bridge, "one text", progress=False)
    for options in ({"holdout": 1}, {"skip_first": -1}):
        with pytest.raises(ValueError, match="must be at least 2, and skip_first 0; got"):
            fit_affine_lens(bridge, random_texts(20), progress=False, **options)


def test_residuals_that_are_not_finite_are_not_fitted_to():
    bridge, texts = shared_bridge("llama"), random_texts(20)
    runs = []

    def overflow(resid, hook):
        runs.append(len(resid))
        return resid / (len(runs) != 7)

    with (
        left_as_found(bridge),
        bridge.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", overflow)]),
        pytest.raises(ValueError, match=r"not finite \(NaN or infinite\) in window 7"),
    ):
        fit_affine_lens(bridge, texts, progress=False)


def test_values_beyond_half_precision_are_saved_as_they_are(tmp_path):
    bridge = shared_bridge("llama")
    lens = fit_affine_lens(bridge, random_texts(20), progress=False)
    lens.bias[1, 3] = 1e5
    lens.save(tmp_path / "lens.safetensors")
    loaded = AffineLens.load(tmp_path / "lens.safetensors")
    assert torch.equal(loaded.bias, lens.bias.float())
    assert torch.equal(loaded.weight, lens.weight.half().float())


def test_the_default_lens_is_the_models_whatever_hooks_are_on(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(default_lens, "_LENGTH", 12)
    bridge = shared_bridge("llama")

    def noise(resid, hook):
        return resid + 3 * torch.randn_like(resid)

    with left_as_found(bridge), bridge.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", noise)]):
        made = default_affine_lens(bridge, progress=False)
    (file,) = tmp_path.iterdir()
    file.unlink()
    assert torch.equal(made.weight, default_affine_lens(bridge, progress=False).weight)


class StopError(Exception):
    """What ends a fit in the middle."""


def stopping_after(texts, n):
    yield from texts[:n]
    raise StopError


def test_a_fit_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_moments, "_SECONDS_BETWEEN_SAVES", 0)
    bridge, texts, path = shared_bridge("llama"), random_texts(40), tmp_path / "partial"
    whole = fit_affine_lens(bridge, texts, progress=False)
    with pytest.raises(StopError):
        fit_affine_lens(bridge, stopping_after(texts, 25), checkpoint=path, progress=False)
    with pytest.raises(ValueError, match="made from other texts"):
        fit_affine_lens(bridge, texts[1:], checkpoint=path, progress=False)
    with pytest.raises(ValueError, match="'holdout': 5"):
        fit_affine_lens(bridge, texts, holdout=5, checkpoint=path, progress=False)
    read = []
    with bridge.hooks(fwd_hooks=[("embed.hook_out", lambda x, hook: read.append(len(x)))]):
        resumed = fit_affine_lens(bridge, texts, checkpoint=path, progress=False)
    assert sum(read) == 15
    assert torch.equal(resumed.weight, whole.weight)
    assert resumed.settings == whole.settings
    (tmp_path / "bad").write_text("x")
    with pytest.raises(ValueError, match="is not a saved checkpoint"):
        fit_affine_lens(bridge, texts, checkpoint=tmp_path / "bad", progress=False)


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
            steps=40,
            learning_rate=1e-3,  # few steps, so larger ones
            held_out=240,
            evaluate_every=10,
            progress=False,
        )
    history = refined.settings["refined"]["held_out_kl"]
    assert history[-1] < 0.99 * history[0]
    # Whole windows of 23 tokens after their first, until 256 with their firsts are reached.
    assert refined.settings["refined"]["tokens"] == 40 * 11 * 23
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


def test_a_direction_carried_to_a_layer_is_read_as_the_token():
    """`inverse` undoes the linear part of a map, but for directions that the map all but erases."""
    generator = torch.Generator().manual_seed(3)
    weight = 0.1 * torch.randn(2, 32, 32, dtype=torch.float64, generator=generator)
    # Layer 1 erases coordinate 0 but for a thousandth.
    weight[1] = 0
    weight[1, 0, 0] = -0.999
    lens = AffineLens(weight, torch.zeros(2, 32, dtype=torch.float64), "", {"tokens": 1})
    direction = torch.randn(1, 32, dtype=torch.float64, generator=generator)
    for layer in range(2):
        read = lens(direction @ lens.inverse(layer), layer)
        expected = direction.clone()
        expected[:, 0] *= layer == 0
        torch.testing.assert_close(read, expected, rtol=0, atol=1e-9)


def test_the_patch_writes_in_the_layers_own_coordinates():
    bridge = shared_bridge("llama")
    lens = fit_affine_lens(bridge, random_texts(60), progress=False)
    tokens = random_texts(1, seed=4)[0][None]
    patch = NextTokenPatch(layer=(1, 2), strength=0.5, mode="add", embedding="lens", lens=lens)
    _, clean = bridge.run_with_cache(tokens)
    with bridge.hooks(fwd_hooks=patch.fwd_hooks(bridge, tokens)):
        _, patched = bridge.run_with_cache(tokens)
    for layer in (1, 2):
        name = f"blocks.{layer}.hook_resid_pre"
        before = clean[name] if layer == 1 else patched["blocks.1.hook_resid_post"]
        written = bridge.W_U.T[tokens[0, 1:]] @ lens.inverse(layer)
        torch.testing.assert_close(patched[name][0, :-1], before[0, :-1] + 0.5 * written)
    with pytest.raises(ValueError, match="needs lens= to be an AffineLens"):
        NextTokenPatch(layer=1, strength=0.5, embedding="lens")
    with pytest.raises(ValueError, match="was fitted for tiny-llama"):
        patch.bind(tiny_bridge("llama", seed=5))


def test_every_use_of_the_lens_by_a_patch_takes_the_fitted_one():
    bridge = shared_bridge("llama")
    lens = fit_affine_lens(bridge, random_texts(60), progress=False)
    tokens = random_texts(1, seed=4)[0]
    for options in ({"mode": "correct"}, {"gate": 4.0}, {"source": "guess"}):
        patch = NextTokenPatch(layer=1, strength=0.5, **options)
        raw = teacher_forced_log_probs(bridge, tokens, patch)
        fitted = teacher_forced_log_probs(bridge, tokens, replace(patch, lens=lens))
        assert (raw - fitted).abs().max() > 1e-3, options
