"""A model whose linear modules have the faster product computes the same, and comes back."""

import pytest
import torch
from torch import nn

import lens_interventions as li
from lens_interventions.intervention.generation import cached_decoder
from lens_interventions.model import fast_linears as fast_linears_module
from lens_interventions.model import product_trials
from lens_interventions.model.fast_linears import decoding_forwards, fast_forwards
from lens_interventions.model.replaced_forwards import replaced_forwards
from tests.support.clean import left_as_found
from tests.support.tiny import shared_bridge

# Sums of float32 in another order: 2.4e-6 was the largest difference here.
ROUNDING = 2e-5

TOKENS = torch.arange(24).reshape(4, 6)
PATCH = li.NextTokenPatch(layer=1, strength=0.5)
pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch has no oneDNN"
)


@pytest.fixture(autouse=True)
def always_faster(monkeypatch):
    monkeypatch.setattr(product_trials, "_is_faster", lambda _shape, _rows: True)
    monkeypatch.setattr(product_trials, "_is_faster_packed", lambda _shape, _rows: False)


def n_fast(model):
    return sum("forward" in vars(module) for module in model.modules() if type(module) is nn.Linear)


@pytest.mark.parametrize("arch", ["llama", "gpt_neox", "phi", "mixtral"])
@torch.no_grad()
def test_logits_are_the_same(arch):
    bridge = shared_bridge(arch, torch.float32)
    expected = bridge(TOKENS)
    with left_as_found(bridge):
        for forwards in (
            fast_forwards(bridge.original_model),
            decoding_forwards(bridge.original_model, 4),
        ):
            with replaced_forwards(forwards):
                assert n_fast(bridge.original_model) > 0
                found = bridge(TOKENS)
            torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("n_prompts", [1, 4])
def test_generation_of_many_tokens_begins_as_that_of_few(n_prompts, monkeypatch):
    bridge = shared_bridge("llama", torch.float32)
    prompts, seen = TOKENS[:n_prompts], []
    before = cached_decoder.CachedDecoder.logits

    def watched(decoder, text):
        seen.append(n_fast(bridge.original_model))
        return before(decoder, text)

    monkeypatch.setattr(cached_decoder.CachedDecoder, "logits", watched)
    few = li.generate(bridge, prompts, PATCH, max_new_tokens=15, stop_at_eos=False)
    assert set(seen) == {0}
    seen.clear()
    with left_as_found(bridge):
        many = li.generate(bridge, prompts, PATCH, max_new_tokens=16, stop_at_eos=False)
    assert min(seen) > 0
    torch.testing.assert_close(many.log_probs[:, :15], few.log_probs, rtol=0, atol=ROUNDING)


def fitted_weights(bridge):
    options = {"window": 6, "skip_first": 0, "holdout": 2, "progress": False}
    lens = li.fit_affine_lens(bridge, [*TOKENS], **options)
    return lens.weight


CALLS = {
    "log_probs": lambda bridge: li.teacher_forced_log_probs(bridge, TOKENS, PATCH),
    "effect_map": lambda bridge: (
        li.effect_map(
            bridge, TOKENS[:1], lambda logits: logits[0, -1, 5], patch=PATCH, layers=[0, 1]
        ).effect
    ),
    "fit": fitted_weights,
}


@pytest.mark.parametrize("call", CALLS)
def test_blocks_that_many_rows_go_through_compute_the_same(call, monkeypatch):
    bridge, seen = shared_bridge("llama", torch.float32), []
    before = bridge.blocks[0].forward

    def watched(*args, **kwargs):
        seen.append(n_fast(bridge.original_model))
        return before(*args, **kwargs)

    plain = CALLS[call](bridge)
    with replaced_forwards([(bridge.blocks[0], watched)]):
        CALLS[call](bridge)
        assert set(seen) == {0}
        monkeypatch.setattr(fast_linears_module, "_MANY_ROWS", 1)
        fast = CALLS[call](bridge)
        assert max(seen) > 0
        with torch.enable_grad():
            seen.clear()
            li.teacher_forced_log_probs(bridge, TOKENS, PATCH, enable_grad=True)
            assert set(seen) == {0}
    assert n_fast(bridge.original_model) == 0
    torch.testing.assert_close(fast, plain, rtol=0, atol=ROUNDING, equal_nan=True)


def test_a_forward_of_the_users_stays():
    bridge = shared_bridge("llama", torch.float32)
    linear = next(m for m in bridge.original_model.modules() if type(m) is nn.Linear)
    assert linear in [module for module, _ in fast_forwards(bridge.original_model)]
    with replaced_forwards([(linear, lambda x: 0 * x)]):
        assert linear not in [module for module, _ in fast_forwards(bridge.original_model)]
