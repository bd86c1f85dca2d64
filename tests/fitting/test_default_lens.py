"""The lens that is made without a corpus at hand."""

import pytest
import torch

import lens_interventions as li
from lens_interventions.fitting import default_lens
from lens_interventions.fitting.default_lens import default_affine_lens
from lens_interventions.model.user_cache import CACHE_VARIABLE
from tests.support.clean import left_as_found
from tests.support.tiny import shared_bridge, tiny_bridge
from tests.support.user_hooks import LASTING


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The user's cache; the lens is fitted to little text."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(default_lens, "_TEXTS", 16)
    monkeypatch.setattr(default_lens, "_LENGTH", 12)
    return tmp_path


def test_the_default_lens_is_the_models_whatever_hooks_are_on(cache):
    bridge = shared_bridge("llama")

    def noise(resid, hook):
        return resid + 3 * torch.randn_like(resid)

    with left_as_found(bridge), bridge.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", noise)]):
        made = default_affine_lens(bridge, progress=False)
    (file,) = cache.iterdir()
    file.unlink()
    assert torch.equal(made.weight, default_affine_lens(bridge, progress=False).weight)


def test_a_damaged_lens_is_fitted_again(cache):
    bridge = shared_bridge("llama")
    made = default_affine_lens(bridge, progress=False)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    for damaged in (b"", whole[:1000]):
        file.write_bytes(damaged)
        assert torch.equal(default_affine_lens(bridge, progress=False).weight, made.weight)
        assert file.read_bytes() == whole


def test_a_model_with_other_norms_has_a_lens_of_its_own(cache):
    made, other = (
        default_affine_lens(tiny_bridge("llama", rms_norm_eps=eps), progress=False)
        for eps in (1e-6, 0.1)
    )
    assert len([*cache.iterdir()]) == 2
    assert not torch.allclose(made.weight, other.weight)


def test_a_short_context_makes_short_texts(cache, monkeypatch):
    monkeypatch.setattr(default_lens, "_LENGTH", 128)
    bridge = tiny_bridge("llama", max_position_embeddings=20)
    lens = default_affine_lens(bridge, progress=False)
    assert lens.settings["tokens"] == 15 * 19  # one is held out
    (file,) = cache.iterdir()
    # Another release may fit otherwise, and another token begin the texts.
    assert f"-16x20-{bridge.tokenizer.bos_token_id}-{li.__version__}." in file.name


@pytest.mark.parametrize("put_on", LASTING)
def test_the_lens_of_a_model_with_hooks_that_last_is_not_that_of_its_weights(put_on, cache):
    bridge = shared_bridge("llama")
    with put_on(bridge, 2, lambda resid, hook=None: resid.flip(-1)):
        hooked = default_affine_lens(bridge, progress=False)
    assert list(cache.iterdir()) == []
    plain = default_affine_lens(bridge, progress=False)
    assert (hooked.weight - plain.weight).abs().max() > 0.1
    with put_on(bridge, 2, lambda resid, hook=None: resid.flip(-1)):
        again = default_affine_lens(bridge, progress=False)
    assert torch.equal(again.weight, hooked.weight)
