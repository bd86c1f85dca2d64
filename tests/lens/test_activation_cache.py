"""Caches that the user already has, read as the tokens are."""

import pytest
import torch

from lens_interventions.intervention.patch import NextTokenPatch
from lens_interventions.lens.logit_lens import logit_lens
from tests.support.tiny import shared_bridge, tiny_bridge

TOKENS = torch.arange(5, 29).view(2, 12) * 7 % 97 + 4


@pytest.mark.parametrize(
    ("names_filter", "tokens", "message"),
    [
        (lambda name: "mlp.hook_out" in name, TOKENS, "stream at 1_pre, 2_pre, final_post: "),
        (lambda name: "resid" in name, None, "pass them as tokens="),
        (lambda name: "resid" in name, TOKENS[:, :5], "does not fit tokens .* without pos_slice"),
        (lambda name: "0.hook_resid" in name, TOKENS, "without stop_at_layer, .* final_post"),
        (
            lambda name: "2.hook_resid" in name,
            TOKENS,
            r"read what it holds: points=\['0_pre', '2_pre'",
        ),
        (None, TOKENS[:, :5], "made from other tokens"),
        (None, TOKENS.flip(0), "made from other tokens"),
    ],
)
def test_caches_that_do_not_fit_are_named(names_filter, tokens, message):
    bridge = shared_bridge("llama")
    _, cache = bridge.run_with_cache(TOKENS, names_filter=names_filter)
    with pytest.raises(ValueError, match=message):
        logit_lens(bridge, cache, tokens=tokens)


@pytest.mark.parametrize(
    "names_filter",
    [
        None,
        lambda name: name.endswith(("resid_pre", "resid_post")),
        lambda name: name.endswith(("resid_post", "hook_out")) and name.startswith("blocks"),
    ],
)
def test_a_cache_gives_what_the_tokens_give(names_filter):
    bridge = shared_bridge("llama")
    _, cache = bridge.run_with_cache(TOKENS, names_filter=names_filter)
    ours = logit_lens(bridge, cache, tokens=TOKENS)
    expected = logit_lens(bridge, TOKENS)
    for name, value in expected.tensors().items():
        torch.testing.assert_close(ours.tensors()[name], value, rtol=0, atol=1e-9, equal_nan=True)


def test_a_cache_without_its_batch_axis():
    bridge = shared_bridge("llama")
    _, cache = bridge.run_with_cache(TOKENS[:1], remove_batch_dim=True)
    ours = logit_lens(bridge, cache, tokens=TOKENS[:1])
    torch.testing.assert_close(ours.entropy, logit_lens(bridge, TOKENS[:1]).entropy)


def test_a_cache_that_is_padded_on_the_left_needs_no_input_point():
    bridge = shared_bridge("gpt2")
    mask = torch.ones_like(TOKENS)
    mask[0, :5] = 0
    _, cache = bridge.run_with_cache(
        TOKENS, attention_mask=mask, names_filter=lambda name: name.endswith("resid_post")
    )
    ours = logit_lens(bridge, cache, tokens=TOKENS, attention_mask=mask)
    for row, text in enumerate((TOKENS[:1, 5:], TOKENS[1:])):
        alone, n = logit_lens(bridge, text), text.shape[1]
        torch.testing.assert_close(
            ours.input_log_prob[:, row, :n], alone.input_log_prob[:, 0], rtol=0, atol=1e-9
        )


@pytest.mark.usefixtures("as_users_run")
def test_a_cache_of_a_model_of_another_width_is_refused():
    _, cache = tiny_bridge("llama", hidden_size=64).run_with_cache(TOKENS)
    with pytest.raises(ValueError, match=r"shape \(2, 12, 64\), but .* has 32 dimensions"):
        logit_lens(shared_bridge("llama"), cache)


def test_a_cache_of_a_patched_run_is_read_as_patched_if_it_holds_resid_pre():
    bridge = shared_bridge("llama")
    patch = NextTokenPatch(layer=1, strength=0.5)
    with bridge.hooks(fwd_hooks=patch.fwd_hooks(bridge, TOKENS)):
        expected = logit_lens(bridge, TOKENS)
        _, cache = bridge.run_with_cache(TOKENS, names_filter=lambda name: "hook_resid" in name)
    ours = logit_lens(bridge, cache, tokens=TOKENS)
    torch.testing.assert_close(ours.kl_final, expected.kl_final, rtol=0, atol=1e-9)
    assert float((expected.kl_final - logit_lens(bridge, TOKENS).kl_final)[1].abs().max()) > 0.01


def test_what_stands_at_padding_need_not_be_what_the_cache_was_made_from():
    bridge = shared_bridge("llama")
    mask = torch.ones_like(TOKENS)
    mask[0, 8:] = 0
    _, cache = bridge.run_with_cache(TOKENS)
    otherwise = TOKENS.clone()
    otherwise[0, 8:] = 1
    ours = logit_lens(bridge, cache, tokens=otherwise, attention_mask=mask)
    expected = logit_lens(bridge, TOKENS, attention_mask=mask)
    assert torch.equal(ours.tokens, expected.tokens)
    with pytest.raises(ValueError, match="made from other tokens"):
        logit_lens(bridge, cache, tokens=otherwise)


def test_a_cache_of_some_positions_is_refused_by_what_it_lacks():
    bridge = shared_bridge("llama")
    _, cache = bridge.run_with_cache(TOKENS, pos_slice=slice(1, 4))
    with pytest.raises(ValueError, match=r"holds 3 of 12 positions: .* without pos_slice"):
        logit_lens(bridge, cache, tokens=TOKENS)
    with pytest.raises(ValueError, match=r"holds 3 of 12 positions: .* without pos_slice"):
        logit_lens(bridge, cache)
    with pytest.raises(ValueError, match="made from other tokens"):
        logit_lens(bridge, cache, tokens=TOKENS.flip(1))


def test_rounded_ids_of_a_cache_in_half_precision_are_not_read():
    bridge = shared_bridge("llama")
    _, cache = bridge.run_with_cache(TOKENS)
    expected = logit_lens(bridge, cache)
    half = cache.to(torch.float16)
    with pytest.raises(ValueError, match=r"ids as torch\.float16, .* pass them as tokens="):
        logit_lens(bridge, half)
    assert torch.equal(logit_lens(bridge, half, tokens=TOKENS).tokens, expected.tokens)
    with pytest.raises(ValueError, match="made from other tokens"):
        logit_lens(bridge, half, tokens=TOKENS.flip(1))


def test_a_bos_cannot_be_put_before_a_cache():
    _, cache = shared_bridge("llama").run_with_cache(TOKENS)
    with pytest.raises(ValueError, match="prepend_bos=True goes with a text"):
        logit_lens(shared_bridge("llama"), cache, prepend_bos=True)
