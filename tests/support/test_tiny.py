"""The tiny bridges, and the check that they were left as found, are what other tests rely on."""

import pytest
import torch

from tests.support.architectures import PROBLEM_ARCHITECTURES
from tests.support.clean import left_as_found
from tests.support.tiny import D_VOCAB, tiny_bridge, tiny_tokenizer

TEXT = "Sometimes, when people say plasma,\n they mean"


def test_bridges_vary_over_positions_and_tokens(bridge):
    tokens = bridge.to_tokens(TEXT)
    logits, cache = bridge.run_with_cache(tokens)
    assert logits.dtype == torch.float64
    assert logits.std(dim=-1).min() > 0.1
    assert logits.std(dim=-2).min() > 0.1
    for layer in range(bridge.cfg.n_layers):
        pattern = cache[f"blocks.{layer}.attn.hook_pattern"]
        assert pattern[..., -1, :].max() < 1 - 1e-3, "attention stuck on one position"


@pytest.mark.parametrize("arch", PROBLEM_ARCHITECTURES)
def test_problem_architectures_boot(arch):
    bridge = tiny_bridge(arch)
    assert bridge.cfg.d_vocab == D_VOCAB
    assert not bridge.training


def test_same_seed_same_bridge():
    tokens = torch.arange(8)[None]
    torch.testing.assert_close(
        tiny_bridge("llama")(tokens), tiny_bridge("llama")(tokens), rtol=0, atol=0
    )
    assert not torch.equal(tiny_bridge("llama")(tokens), tiny_bridge("llama", seed=1)(tokens))


def test_config_overrides():
    assert tiny_bridge("llama", num_hidden_layers=1).cfg.n_layers == 1


def test_tokenizer_keeps_text_and_prepends_bos():
    tokenizer = tiny_tokenizer()
    ids = tokenizer(TEXT).input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == TEXT
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3
    assert len(tokenizer) == D_VOCAB


def _leave_a_hook(bridge):
    bridge.add_hook("blocks.1.hook_resid_pre", lambda resid, hook: resid)


def _leave_a_torch_hook(bridge):
    bridge.blocks[1].register_forward_hook(lambda *_: None)


def _replace_a_forward(bridge):
    block = bridge.blocks[0]
    original = block.forward
    block.forward = lambda *args, **kwargs: original(*args, **kwargs)


def _change_a_weight(bridge):
    with torch.no_grad():
        next(bridge.parameters()).add_(1e-3)


def _train(bridge):
    bridge.train()


def _freeze(bridge):
    next(bridge.parameters()).requires_grad_(False)


@pytest.mark.parametrize(
    "damage",
    [_leave_a_hook, _leave_a_torch_hook, _replace_a_forward, _change_a_weight, _train, _freeze],
)
def test_damage_is_noticed(damage):
    bridge = tiny_bridge("gpt2")
    with pytest.raises(AssertionError), left_as_found(bridge):
        damage(bridge)


def test_damage_is_noticed_after_an_exception():
    bridge = tiny_bridge("gpt2")

    def damaged_then_failed():
        with left_as_found(bridge):
            _leave_a_hook(bridge)
            raise KeyError

    with pytest.raises(AssertionError):
        damaged_then_failed()
