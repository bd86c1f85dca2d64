"""Affine lenses as files, and the way back from the last point to a layer."""

import pytest
import torch

from lens_interventions.fitting.affine_fit import fit_affine_lens
from lens_interventions.lens.affine import AffineLens
from lens_interventions.lens.logit_lens import logit_lens
from lens_interventions.model.fingerprint import fingerprint
from tests.support.corpora import random_texts
from tests.support.tiny import shared_bridge, tiny_bridge


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
    with pytest.raises(ValueError, match=r"3 windows of at most .* are too few"):
        fit_affine_lens(bridge, random_texts(3), progress=False)
    with pytest.raises(TypeError, match="put it in a list"):
        fit_affine_lens(bridge, "one text", progress=False)
    for options in ({"holdout": 1}, {"skip_first": -1}):
        with pytest.raises(ValueError, match="skip_first at least 0; got"):
            fit_affine_lens(bridge, random_texts(20), progress=False, **options)


def test_values_beyond_half_precision_are_saved_as_they_are(tmp_path):
    bridge = shared_bridge("llama")
    lens = fit_affine_lens(bridge, random_texts(20), progress=False)
    lens.bias[1, 3] = 1e5
    lens.save(tmp_path / "lens.safetensors")
    loaded = AffineLens.load(tmp_path / "lens.safetensors")
    assert torch.equal(loaded.bias, lens.bias.float())
    assert torch.equal(loaded.weight, lens.weight.half().float())
    with pytest.raises(ValueError, match=r"a floating-point one.*got torch\.int32"):
        lens.save(tmp_path / "whole.safetensors", dtype=torch.int32)
    assert not (tmp_path / "whole.safetensors").exists()


@pytest.mark.parametrize("layer", [-1, 2])
def test_a_layer_that_the_lens_does_not_have_is_refused(layer):
    lens = AffineLens(torch.zeros(2, 4, 4), torch.zeros(2, 4), "", {})
    with pytest.raises(ValueError, match=f"the lens has layers 0 to 1, got {layer}"):
        lens(torch.zeros(1, 4), layer)


def test_residuals_of_another_width_are_refused():
    lens = AffineLens(torch.zeros(2, 4, 4), torch.zeros(2, 4), "", {})
    with pytest.raises(ValueError, match="the lens is for residuals of width 4, got 8"):
        lens(torch.zeros(1, 8), 0)


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
