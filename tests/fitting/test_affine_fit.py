"""Affine lenses against least squares on materialized residuals, and where the truth is linear."""

import numpy as np
import pytest
import torch

from lens_interventions.fitting.affine_fit import fit_affine_lens
from lens_interventions.fitting.input_probe import fit_input_probe
from lens_interventions.lens.lens_over import lens_over
from lens_interventions.lens.logit_lens import logit_lens
from tests.support.clean import left_as_found
from tests.support.corpora import random_texts, residual_rows
from tests.support.tiny import shared_bridge, tiny_bridge


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


def test_the_fit_does_not_depend_on_batching():
    bridge = shared_bridge("llama")
    texts = random_texts(24)
    together = fit_affine_lens(bridge, [torch.stack(texts[i : i + 6]) for i in range(0, 24, 6)])
    alone = fit_affine_lens(bridge, texts, progress=False)
    torch.testing.assert_close(together.weight, alone.weight, rtol=0, atol=1e-9)


def test_a_window_beyond_the_context_is_recorded_as_it_was_read():
    bridge = shared_bridge("llama")
    by_default, chosen = (
        fit_affine_lens(bridge, random_texts(), progress=False, **options).settings["window"]
        for options in ({}, {"window": 48})
    )
    assert (by_default, chosen) == (int(bridge.cfg.n_ctx), 48)


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


def test_a_checkpoint_is_not_for_a_model_with_hooks(llama, tmp_path):
    """It could not know them again."""
    texts = random_texts(12, 20)
    options = {"checkpoint": tmp_path / "sums", "progress": False}
    fit_affine_lens(llama, texts, **options)
    with (
        llama.hooks(fwd_hooks=[("blocks.0.hook_resid_post", lambda tensor, hook: 2 * tensor)]),
        pytest.raises(ValueError, match="there are hooks on the bridge"),
    ):
        fit_affine_lens(llama, texts, **options)


def test_a_checkpoint_is_not_for_another_model_or_fit(tmp_path):
    options = {"window": 20, "checkpoint": tmp_path / "sums", "progress": False}
    fit_affine_lens(tiny_bridge("llama"), random_texts(20), **options)
    with pytest.raises(ValueError, match="was made with"):
        fit_affine_lens(tiny_bridge("llama", seed=1), random_texts(20), **options)
    with pytest.raises(ValueError, match="was made with"):
        fit_affine_lens(tiny_bridge("llama", rms_norm_eps=0.1), random_texts(20), **options)
    with pytest.raises(ValueError, match="was made with"):
        fit_input_probe(tiny_bridge("llama"), random_texts(20), **options)
