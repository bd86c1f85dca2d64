"""What was fitted for a model is used on the same weights in another dtype, and on no others."""

import warnings

import pytest
import torch

import lens_interventions as li
from lens_interventions.fitting.affine_fit import fit_affine_lens
from lens_interventions.fitting.input_probe import fit_input_probe
from lens_interventions.model.fingerprint import fingerprint
from lens_interventions.model.same_weights import weights_mismatch
from tests.support.corpora import random_texts
from tests.support.tiny import random_tokens, tiny_bridge


def in_dtypes(saved, arch="llama"):
    """The same model, saved in one dtype, loaded in three."""
    bridges = [tiny_bridge(arch, dtype=saved) for _ in range(3)]
    dtypes = (torch.float32, torch.bfloat16, torch.float64)
    for bridge, dtype in zip(bridges, dtypes, strict=True):
        bridge.original_model.to(dtype)
        bridge.cfg.dtype = dtype
    return bridges


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_a_fingerprint_in_a_dtype_is_that_of_the_converted_model(arch):
    float32, bfloat16, float64 = in_dtypes(torch.bfloat16, arch)
    assert len({fingerprint(bridge) for bridge in (float32, bfloat16, float64)}) == 3
    assert fingerprint(bfloat16, torch.float32) == fingerprint(float32)
    assert fingerprint(float32, torch.bfloat16) == fingerprint(bfloat16)
    assert fingerprint(float64, torch.float64) == fingerprint(float64)


@pytest.mark.parametrize("fit", [fit_affine_lens, fit_input_probe])
def test_the_same_weights_in_another_dtype_are_recognised(fit):
    float32, bfloat16, _ = in_dtypes(torch.bfloat16)
    for fitted, other in ((float32, bfloat16), (bfloat16, float32)):
        made = fit(fitted, random_texts(20), progress=False)
        name = made.settings["dtype"]
        assert name == str(fitted.W_E.dtype).removeprefix("torch.")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made.require_fits(fitted)
        with pytest.warns(UserWarning, match=f"fitted for these weights in {name}, .* load the m"):
            made.require_fits(other)
        different = tiny_bridge("llama", dtype=other.W_E.dtype, seed=5)
        with pytest.raises(ValueError, match=f"was fitted in {name}, .* load it in {name}, or fit"):
            made.require_fits(different)
        with pytest.raises(ValueError, match=r"weights \w+: fit one"):
            made.require_fits(tiny_bridge("llama", dtype=fitted.W_E.dtype, seed=5))


def test_weights_that_rounding_changed_are_refused_and_the_dtypes_named():
    float32, bfloat16, _ = in_dtypes(torch.float32)
    lens = fit_affine_lens(float32, random_texts(20), progress=False)
    with pytest.raises(ValueError, match="in bfloat16, but the lens was fitted in float32"):
        li.logit_lens(bfloat16, random_tokens(1, 5), lens=lens)
    # As of what was saved before dtypes were.
    problem = weights_mismatch(bfloat16, lens.fingerprint, "write", {}, "train one")
    assert problem.endswith(
        "in bfloat16: train one, or load the same model in the dtype in which it was then"
    )
