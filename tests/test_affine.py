"""Affine lenses against least squares on materialized residuals, and where the truth is linear."""

import numpy as np
import pytest
import torch

from lens_interventions.affine import AffineLens, fingerprint, fit_affine_lens
from lens_interventions.aggregate import lens_over
from lens_interventions.lens import logit_lens
from tests.clean import left_as_found
from tests.tiny import D_VOCAB, shared_bridge, tiny_bridge


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
        lens = fit_affine_lens(bridge, texts, progress=False)
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
        np.testing.assert_allclose(lens.weight[layer], solution[:-1], atol=1e-7)
        np.testing.assert_allclose(lens.bias[layer], solution[-1], atol=1e-7)


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
    assert loaded.settings["ridges"] == list(lens.settings["ridges"])
    with pytest.raises(ValueError, match="was fitted for tiny-llama"):
        logit_lens(tiny_bridge("llama", seed=5), [5, 6], lens=loaded)
    with pytest.raises(FileNotFoundError):
        AffineLens.load(tmp_path / "none")
    (tmp_path / "bad").write_text("x")
    with pytest.raises(ValueError, match="is not a saved lens"):
        AffineLens.load(tmp_path / "bad")
    with pytest.raises(ValueError, match="3 windows of text leave none"):
        fit_affine_lens(bridge, random_texts(3), progress=False)
