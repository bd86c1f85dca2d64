"""What a bridge can do is found once, shown in one place, and forgotten with the bridge."""

import functools
import gc
import math
import warnings
import weakref
from contextlib import contextmanager
from unittest.mock import patch

import pytest
import torch

import lens_interventions as li
from lens_interventions.intervention.generation.cached_decoder import CachedDecoder
from lens_interventions.intervention.teacher_forcing.self_check import Trial
from lens_interventions.model.capabilities import (
    _found,
    blocks_return_tuples,
    capabilities,
    embedding_factor,
    fills_cache,
    frequencies_change_after,
    recall,
)
from lens_interventions.model.readout import require_readable
from lens_interventions.model.replaced_forwards import replaced_forwards
from tests.support.exact import float64_softmax
from tests.support.reference_generation import naive_tokens
from tests.support.reference_intervention import patched_logits
from tests.support.tiny import long_rope_bridge, random_tokens, shared_bridge, tiny_bridge
from tests.support.user_hooks import LASTING, permanent_hook, push_first


def runs_of(bridge, function):
    """How often the first block runs in a call."""
    runs, block = [], bridge.blocks[0]
    forward = type(block).forward

    def counted(module, *args, **kwargs):
        runs.append(module is block)
        return forward(module, *args, **kwargs)

    # Under a hook of torch, or with another forward on the block alone, checks would be made anew.
    with patch.object(type(block), "forward", counted):
        function(bridge)
    return sum(runs)


@pytest.mark.parametrize("check", [blocks_return_tuples, fills_cache, embedding_factor])
def test_no_hook_of_the_user_sees_a_check(check):
    """It may be made while their text runs."""
    bridge, seen = tiny_bridge("llama"), []

    def look(_tensor, hook):
        seen.append(hook.name)

    with bridge.hooks(fwd_hooks=[("hook_embed", look), ("blocks.0.hook_resid_pre", look)]):
        check(bridge)
    assert not seen


@pytest.mark.parametrize("check", [require_readable, blocks_return_tuples, fills_cache])
def test_a_check_runs_the_model_once(check):
    bridge = tiny_bridge("gpt2")
    assert runs_of(bridge, check) > 0
    assert runs_of(bridge, check) == 0
    # Processed weights run in another way.
    bridge.enable_compatibility_mode()
    assert capabilities(bridge) == {}
    assert runs_of(bridge, check) > 0


@pytest.mark.parametrize("put_on", LASTING)
def test_a_hook_that_lasts_has_the_model_tried_again(put_on):
    """Two streams and a cache are right on the model, and wrong under a hook for whole texts."""
    bridge, tokens = tiny_bridge("llama"), torch.arange(4, 16)[None]
    patch = li.NextTokenPatch(layer=1, strength=0.5, embedding="W_U")
    plain = li.teacher_forced_logits(bridge, tokens, patch)
    options = {"max_new_tokens": 3, "stop_at_eos": False}
    generated = li.generate(bridge, tokens, patch, **options).tokens
    with float64_softmax(), put_on(bridge, 2, push_first):
        with pytest.warns(UserWarning, match="does not run two copies"):
            found = li.teacher_forced_logits(bridge, tokens, patch)
        with pytest.warns(UserWarning, match="is not exact"):
            pushed = li.generate(bridge, tokens, patch, **options).tokens
        with torch.no_grad():
            naive = patched_logits(bridge, tokens[0], patch)
        assert pushed.tolist() == naive_tokens(bridge, tokens.tolist(), patch, 3)
    torch.testing.assert_close(found.view_as(naive), naive, rtol=0, atol=1e-9)
    assert not torch.allclose(found, plain)
    # Without it, what was found before holds.
    torch.testing.assert_close(li.teacher_forced_logits(bridge, tokens, patch), plain)
    assert torch.equal(li.generate(bridge, tokens, patch, **options).tokens, generated)


def test_answers_under_hooks_do_not_pile_up():
    bridge = tiny_bridge("llama")
    recall(bridge, "question", lambda: "without")
    for number in range(3):
        with permanent_hook(bridge, 1, push_first):
            assert recall(bridge, "question", lambda number=number: number) == number
    assert capabilities(bridge) == {"question": "without"}
    assert len(_found[bridge]) == 3  # with the last hooks, without hooks, and for any hooks


@contextmanager
def another_forward(module, forward):
    """As a user replaces it, in the module's own dictionary."""
    vars(module)["forward"] = forward
    try:
        yield
    finally:
        del vars(module)["forward"]


def test_a_model_with_other_forwards_or_numbers_is_asked_anew():
    """While it has them; at the end it is what it was."""
    bridge = tiny_bridge("llama")
    mlp = bridge.original_model.model.layers[1].mlp
    asked = []

    def ask():
        return recall(bridge, "question", lambda: asked.append(1) or len(asked))

    assert [ask(), ask()] == [1, 1]
    for answer in (2, 3):
        with another_forward(mlp, lambda resid, answer=answer: resid * answer):
            assert [ask(), ask()] == [answer, answer]
    with replaced_forwards([(mlp, lambda resid: resid)]):  # as the library does, for a while
        assert ask() == 1
    bridge.float()
    assert ask() == 4
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ask() == 5
    assert ask() == 4
    bridge.double()
    config = bridge.original_model.config
    before = config._attn_implementation  # eager, or sdpa with TransformerLens 3.9
    config._attn_implementation = "sdpa" if before == "eager" else "eager"
    assert ask() == 6
    config._attn_implementation = before
    assert ask() == 1


def test_a_forward_that_counts_positions_is_seen_after_a_patch_was_run():
    """Two rows at one position would be at two: every position then takes a step of its own."""
    bridge, tokens = tiny_bridge("llama"), random_tokens(1, 8)
    patch = li.NextTokenPatch(layer=1, strength=0.5)
    li.teacher_forced_logits(bridge, tokens, patch)
    mlp = bridge.original_model.model.layers[1].mlp

    @functools.wraps(type(mlp).forward)
    def by_place(resid):
        place = torch.arange(resid.shape[1], dtype=resid.dtype)
        return type(mlp).forward(mlp, resid) * (1 + place[:, None] / 10)

    with another_forward(mlp, by_place):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            found = li.teacher_forced_logits(bridge, tokens, patch)
        naive = patched_logits(bridge, tokens[0], patch)
    assert any("in a step of its own" in str(warning.message) for warning in warned)
    torch.testing.assert_close(found[0], naive, rtol=0, atol=1e-9)


def test_what_fails_is_tried_again():
    bridge = tiny_bridge("llama")

    def fail():
        raise RuntimeError

    with pytest.raises(RuntimeError):
        recall(bridge, "question", fail)
    assert recall(bridge, "question", lambda: "answer") == "answer"


def test_everything_that_was_found_is_in_one_place():
    bridge = tiny_bridge("gemma2")
    assert capabilities(bridge) == {}
    patch = li.NextTokenPatch(layer=1, strength=0.5)
    li.teacher_forced_logits(bridge, torch.arange(4, 12)[None], patch)
    li.generate(bridge, [[5, 6, 7]], patch, max_new_tokens=2)
    factor = capabilities(bridge).pop("factor of the token embedding")
    assert factor == pytest.approx(32**0.5)
    assert capabilities(bridge) == {
        "logits are ln_final and unembed of the last residual point": True,
        "factor of the token embedding": factor,
        "blocks return tuples": False,
        "two streams from layer 0": Trial(right_up_to=8),
        "two streams from layer 1": Trial(right_up_to=32),
        "problem of decoding with a cache, in two parts from block 1 up": "",
        "rotary frequencies change after so many tokens": math.inf,
    }


def test_what_two_streams_raised_is_among_it():
    bridge = tiny_bridge("bloom")
    patch = li.NextTokenPatch(layer=1, strength=0.5, embedding="W_U")
    with pytest.warns(UserWarning, match="does not run two copies|is not exact"):
        li.teacher_forced_logits(bridge, torch.arange(4, 12)[None], patch)
    found = capabilities(bridge)["two streams from layer 1"]
    assert found.right_up_to == 0
    assert found.raised.startswith("ValueError: ")


def test_bridges_are_told_apart_and_forgotten():
    bridge = tiny_bridge("llama")
    require_readable(bridge)
    assert capabilities(bridge) != {}
    assert capabilities(tiny_bridge("llama")) == {}
    forgotten = weakref.ref(bridge)
    del bridge
    gc.collect()
    assert forgotten() is None


def test_rotary_frequencies_that_hang_on_the_length_are_named():
    assert frequencies_change_after(long_rope_bridge(20)) == 20
    assert frequencies_change_after(shared_bridge("gemma3_text")) == math.inf
    scaled = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
    dynamic = tiny_bridge("llama", rope_parameters=scaled, max_position_embeddings=40)
    assert frequencies_change_after(dynamic) == 40


def test_an_embedding_is_measured_each_time():
    bridge = tiny_bridge("llama")
    assert embedding_factor(bridge) == 1
    bridge.add_perma_hook("hook_embed", lambda tensor, hook: 3 * tensor)
    assert embedding_factor(bridge) == pytest.approx(3)
    assert embedding_factor(shared_bridge("granite")) == pytest.approx(2)


def test_tokens_that_the_head_excludes_do_not_hide_whether_a_fast_way_is_right():
    bridge = tiny_bridge("phi")
    bridge.b_U.data[-9:] = -torch.inf
    patch = li.NextTokenPatch(layer=1, strength=0.5)
    li.teacher_forced_logits(bridge, torch.arange(3, 12)[None], patch)
    assert capabilities(bridge)["two streams from layer 1"] == Trial(right_up_to=32)


def test_a_wrong_cache_is_found_beside_tokens_that_the_head_excludes(monkeypatch):
    right = CachedDecoder.logits
    monkeypatch.setattr(CachedDecoder, "logits", lambda self, text: right(self, text).roll(1, -1))
    bridge = tiny_bridge("phi")
    bridge.b_U.data[-9:] = -torch.inf
    with pytest.warns(UserWarning, match="logits differ by"):
        li.generate(bridge, [[5, 6, 7]], li.NextTokenPatch(layer=1, strength=0.5), max_new_tokens=1)
