"""What a fingerprint does not know of a model is found, whatever it is."""

from contextlib import contextmanager, nullcontext
from functools import partial
from types import MethodType

import pytest
import torch

import lens_interventions as li
from lens_interventions.fitting import default_lens
from lens_interventions.model.alterations import alteration
from lens_interventions.model.bypass import Unwrapping
from lens_interventions.model.fast_linears import fast_blocks
from lens_interventions.model.replaced_forwards import KERNELS_END
from lens_interventions.model.user_cache import CACHE_VARIABLE
from tests.support.corpora import random_texts
from tests.support.kernels import kernels, norms_of
from tests.support.tiny import random_tokens, shared_bridge, tiny_bridge
from tests.support.user_hooks import permanent_hook, push_first, torch_hook


@contextmanager
def another_forward(bridge):
    parts = bridge.original_model.modules()
    mlp = next(each for each in parts if type(each).__name__ == "LlamaMLP")
    mlp.forward = lambda x, forward=mlp.forward: 2 * forward(x)
    try:
        yield
    finally:
        del mlp.forward


def temporary_hook(bridge):
    return bridge.hooks(fwd_hooks=[("blocks.0.hook_out", push_first)])


def autocast(_bridge):
    return torch.autocast("cpu", torch.bfloat16)


ALTERED = {
    "hooks on the bridge": temporary_hook,
    "another forward": another_forward,
    "torch.autocast is on": autocast,
}


@pytest.mark.parametrize(
    ("put_on", "said"),
    [
        (nullcontext, None),
        (temporary_hook, "there are hooks on the bridge"),
        (partial(permanent_hook, layer=1, change=push_first), "there are hooks on the bridge"),
        (partial(torch_hook, layer=1, change=push_first), "there are hooks on the bridge"),
        (another_forward, "a module of the bridge has another forward than its class"),
        (kernels, f"transformers runs kernels in place of some modules ({KERNELS_END})"),
        (autocast, "torch.autocast is on"),
    ],
)
def test_what_is_put_on_a_model_is_named(put_on, said):
    bridge = shared_bridge("llama", torch.float32)
    with put_on(bridge):
        assert alteration(bridge) == said
        assert (alteration(bridge, temporary_hooks=False) == said) is (put_on != temporary_hook)
    assert alteration(bridge) is None


def test_what_transformer_lens_puts_on_is_no_alteration():
    """It adapts Falcon by other forwards of single modules."""
    bridge = shared_bridge("falcon", torch.float32)
    assert any("forward" in vars(module) for module in bridge.original_model.modules())
    assert alteration(bridge) is None


def test_what_the_library_puts_on_is_no_alteration():
    bridge = shared_bridge("llama", torch.float32)
    with fast_blocks(bridge, 10**6):
        assert alteration(bridge) is None


@pytest.mark.parametrize("runs_kernels", [False, True])
def test_the_own_forward_of_a_class_on_its_module_is_no_alteration(runs_kernels):
    """transformers 5.25 binds it to modules that could have a kernel, and have none on a CPU."""
    bridge, tokens = tiny_bridge("llama", dtype=torch.float32), torch.tensor([[5, 17, 4]])
    expected = li.generate(bridge, tokens, max_new_tokens=4).tokens
    for norm in norms_of(bridge):
        norm.forward = MethodType(type(norm).forward, norm)
    bridge.original_model._use_kernels = runs_kernels
    assert alteration(bridge) is None
    unwrapped, blocks = Unwrapping(bridge), list(bridge.blocks)
    with unwrapped():
        assert all(a is not b for a, b in zip(bridge.blocks, blocks, strict=True))
    assert torch.equal(li.generate(bridge, tokens, max_new_tokens=4).tokens[0], expected[0])


@pytest.mark.parametrize("said", ALTERED)
def test_numbers_of_an_altered_model_are_not_kept_under_the_name_of_its_weights(said, tmp_path):
    bridge = tiny_bridge("llama", dtype=torch.float32)
    texts, patch = random_texts(12, 20), li.NextTokenPatch(layer=1, strength=0.5)
    calls = [
        partial(li.patch_loss, bridge, [random_tokens(8)], patch, checkpoint=tmp_path / "sums"),
        partial(li.fit_affine_lens, bridge, texts, checkpoint=tmp_path / "lens"),
        partial(
            li.train_patch, bridge, texts, layer=1, rank=4, steps=1, checkpoint=tmp_path / "write"
        ),
        partial(li.train_patch, bridge, texts, layer=1, rank=4, steps=1, store=li.ResidualStore()),
    ]
    for call in calls:
        with ALTERED[said](bridge), pytest.raises(ValueError, match=said):
            call(progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("put_on", [another_forward, autocast])
def test_the_default_lens_of_an_altered_model_is_not_kept(put_on, tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(default_lens, "_TEXTS", 16)
    monkeypatch.setattr(default_lens, "_LENGTH", 12)
    bridge = tiny_bridge("llama", dtype=torch.float32)
    with put_on(bridge):
        li.default_affine_lens(bridge, progress=False)
    assert list(tmp_path.iterdir()) == []
    li.default_affine_lens(bridge, progress=False)
    assert len(list(tmp_path.iterdir())) == 1
