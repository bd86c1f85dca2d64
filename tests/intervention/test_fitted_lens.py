"""A patch that reads and writes through a fitted lens."""

from dataclasses import replace

import pytest
import torch
from transformer_lens.tools.analysis import JacobianLens

from lens_interventions.fitting.affine_fit import fit_affine_lens
from lens_interventions.intervention.patch import NextTokenPatch
from lens_interventions.intervention.teacher_forcing.log_probs import teacher_forced_log_probs
from tests.support.corpora import random_texts
from tests.support.tiny import shared_bridge, tiny_bridge


def affine_lens(bridge):
    """A fitted lens, and its maps of rows."""
    lens = fit_affine_lens(bridge, random_texts(60), progress=False)
    maps = torch.eye(bridge.cfg.d_model) + lens.weight
    return lens, {layer: maps[layer] for layer in (1, 2)}


def jacobian_lens(bridge):
    """A Jacobian lens, and its maps as maps of rows."""
    width = bridge.cfg.d_model
    jacobians = {block: torch.eye(width) + 0.1 * torch.randn(width, width) for block in (0, 1)}
    lens = JacobianLens(jacobians, n_prompts=1, d_model=width)
    return lens, {block + 1: jacobian.T for block, jacobian in lens.jacobians.items()}


@pytest.mark.parametrize("make", [affine_lens, jacobian_lens])
def test_the_patch_writes_in_the_layers_own_coordinates(make):
    bridge = shared_bridge("llama")
    lens, maps = make(bridge)
    tokens = random_texts(1, seed=4)[0][None]
    patch = NextTokenPatch(layer=(1, 2), strength=0.5, mode="add", embedding="lens", lens=lens)
    _, clean = bridge.run_with_cache(tokens)
    with bridge.hooks(fwd_hooks=patch.fwd_hooks(bridge, tokens)):
        _, patched = bridge.run_with_cache(tokens)
    for layer in (1, 2):
        name = f"blocks.{layer}.hook_resid_pre"
        before = clean[name] if layer == 1 else patched["blocks.1.hook_resid_post"]
        written = bridge.W_U.T[tokens[0, 1:]] @ torch.linalg.pinv(maps[layer].double(), rtol=1e-2)
        found = patched[name][0, :-1] - before[0, :-1]
        torch.testing.assert_close(found, 0.5 * written, atol=1e-4, rtol=1e-4)  # kept in float32


def test_a_patch_in_the_coordinates_of_a_lens_needs_a_fitted_one():
    with pytest.raises(ValueError, match=r"to be an AffineLens.* or a JacobianLens"):
        NextTokenPatch(layer=1, strength=0.5, embedding="lens")
    lens, _ = affine_lens(shared_bridge("llama"))
    patch = NextTokenPatch(layer=1, strength=0.5, embedding="lens", lens=lens)
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
