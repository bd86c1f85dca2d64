"""The readout is the model's own."""

import re
from functools import partial

import pytest
import torch

import lens_interventions as li
from lens_interventions.model.readout import readout, refuse_readout_hooks
from lens_interventions.model.residuals import residuals
from lens_interventions.model.tokens import token_batch
from tests.support.tiny import shared_bridge, tiny_bridge

TOKENS = torch.tensor([[5, 9, 33, 71, 20]])


def test_readout_of_the_last_point_is_the_model(bridge):
    (last,) = residuals(bridge, token_batch(bridge, TOKENS), ["final_post"])
    torch.testing.assert_close(readout(bridge)(last), bridge(TOKENS), rtol=0, atol=1e-9)


def permanent(bridge, name):
    bridge.hook_dict[name].add_perma_hook(lambda tensor, hook: 1.1 * tensor)
    return partial(bridge.hook_dict[name].remove_hooks, including_permanent=True)


def on_module(bridge, name):
    module = bridge.get_submodule(name)
    return module.register_forward_hook(lambda _module, _args, out: 1.1 * out).remove


@pytest.mark.parametrize(
    ("put_on", "name"),
    [
        (permanent, "unembed.hook_out"),
        (on_module, "unembed"),
    ],
)
@pytest.mark.parametrize(
    "read",
    [
        li.logit_lens,
        lambda bridge, tokens: li.teacher_forced_log_probs(bridge, tokens, None),
        lambda bridge, tokens: li.teacher_forced_log_probs(
            bridge, tokens, li.NextTokenPatch(layer=1, strength=0.5)
        ),
    ],
)
def test_a_hook_that_lasts_is_refused_where_a_readout_would_pass_it_by(llama, put_on, name, read):
    readout(llama)
    take_off = put_on(llama, name)
    try:
        with pytest.raises(ValueError, match=rf"a hook on {re.escape(name)}, which would not act"):
            read(llama, TOKENS)
    finally:
        take_off()


def test_a_hook_that_lasts_and_cannot_read_few_tokens_is_named():
    bridge = tiny_bridge("llama")

    def zero_one_column(_module, _given, out):
        out[:, 40] = 0

    bridge.blocks[1].mlp.register_forward_hook(zero_one_column)
    with pytest.raises(ValueError, match=r"failed on the 4 tokens on which .*index 40 is out"):
        li.logit_lens(bridge, TOKENS.repeat(1, 10))


@pytest.mark.filterwarnings("ignore:A forward hook edited hook_scale")
@pytest.mark.parametrize(
    ("put_on", "name"), [(permanent, "ln_final.hook_normalized"), (on_module, "ln_final")]
)
def test_a_hook_that_lasts_on_the_final_norm_acts(llama, put_on, name):
    take_off = put_on(llama, name)
    try:
        own = llama(TOKENS).log_softmax(-1)[0, :-1].gather(-1, TOKENS[0, 1:, None])[:, 0]
        found = li.teacher_forced_log_probs(llama, TOKENS, None)
        torch.testing.assert_close(found[0], own, rtol=0, atol=1e-9)
        read = li.logit_lens(llama, TOKENS)
        torch.testing.assert_close(read.next_log_prob[-1, 0, :-1], own, rtol=0, atol=1e-6)
    finally:
        take_off()


def test_hooks_by_which_libraries_adapt_a_model_are_not_refused(bridge):
    bridge.run_with_cache(TOKENS)
    bridge.original_model(TOKENS, output_hidden_states=True)
    refuse_readout_hooks(bridge)


@pytest.mark.parametrize("arch", ["gpt2", "llama"])
def test_nor_is_compatibility_mode(arch):
    bridge = tiny_bridge(arch)
    bridge.enable_compatibility_mode()
    refuse_readout_hooks(bridge)


def test_a_soft_cap_is_not_linear():
    assert readout(shared_bridge("gemma2")).scale is None
    assert readout(shared_bridge("cohere")).scale == 0.5
    assert readout(shared_bridge("granite")).scale == 0.5
    assert readout(shared_bridge("llama")).scale == 1


@pytest.mark.parametrize("arch", ["gpt2", "gpt_neox", "llama", "gemma3_text"])
def test_directions_of_tokens_are_gradients_of_their_logits(arch):
    """Against the mean logit, and across the residual, whose size the norm divides by."""
    read = readout(shared_bridge(arch))
    residual = torch.randn(32, dtype=torch.float64, requires_grad=True)
    logits = read(residual)
    with torch.no_grad():
        directions = read.token_directions(read.weight[:9])
        lengths = read.unit_directions(read.weight).norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
    centred = residual.detach()
    if arch in ("gpt2", "gpt_neox"):
        centred = centred - centred.mean()
    unit = centred / centred.norm()
    for token, direction in enumerate(directions):
        rise = logits[token] - logits.mean()
        (gradient,) = torch.autograd.grad(rise, residual, retain_graph=True)
        across = [vector - (vector @ unit) * unit for vector in (gradient, direction)]
        # The norm keeps an epsilon for residuals of no size.
        scale = centred.norm() / 32**0.5
        torch.testing.assert_close(across[0] * scale, across[1], rtol=0, atol=1e-4)


def test_a_model_on_several_devices_is_refused_and_told_why():
    bridge = tiny_bridge("llama")
    bridge.cfg.n_devices = 2
    with pytest.raises(NotImplementedError, match="spread over 2 devices"):
        li.logit_lens(bridge, [5, 6, 7])


def test_the_mean_row_is_that_of_the_tokens_that_can_come():
    """A head excludes tokens, such as those that fill a vocabulary up, by a bias of -inf."""
    bridge = tiny_bridge("gptj")
    bridge.b_U.data[-9:] = -torch.inf
    read = readout(bridge)
    torch.testing.assert_close(read.mean_row, read.weight[:-9].mean(0))
