"""The lens that is made without a corpus at hand."""

import torch

from lens_interventions.fitting import default_lens
from lens_interventions.fitting.default_lens import default_affine_lens
from lens_interventions.model._user_cache import CACHE_VARIABLE
from tests.support.clean import left_as_found
from tests.support.tiny import shared_bridge


def test_the_default_lens_is_the_models_whatever_hooks_are_on(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(default_lens, "_TEXTS", 16)
    monkeypatch.setattr(default_lens, "_LENGTH", 12)
    bridge = shared_bridge("llama")

    def noise(resid, hook):
        return resid + 3 * torch.randn_like(resid)

    with left_as_found(bridge), bridge.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", noise)]):
        made = default_affine_lens(bridge, progress=False)
    (file,) = tmp_path.iterdir()
    file.unlink()
    assert torch.equal(made.weight, default_affine_lens(bridge, progress=False).weight)
