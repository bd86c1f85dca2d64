"""Padding that came without a mask is read as text, and a warning says so where it is likely."""

import dataclasses
import warnings

import pytest
import torch

import lens_interventions as li
from lens_interventions.model.padding import warn_of_padding
from tests.support.tiny import random_tokens, shared_bridge, tiny_bridge

TEXTS = ["the time", "when people say plasma, they mean a state"]
PATCH = li.NextTokenPatch(layer=1, strength=0.4, scale="norm")
SIDES = pytest.mark.parametrize("side", ["left", "right"])


def padded(bridge, side):
    tokens = bridge.to_tokens(TEXTS, padding_side=side)
    rows = [bridge.to_tokens(text)[0] for text in TEXTS]
    mask = torch.zeros_like(tokens)
    for place, row in zip(mask, rows, strict=True):
        place[slice(-len(row), None) if side == "left" else slice(len(row))] = 1
    return tokens, mask


@SIDES
@pytest.mark.parametrize(
    "read",
    [
        li.logit_lens,
        lambda bridge, tokens, **mask: li.logit_lens(
            bridge, bridge.run_with_cache(tokens)[1], **mask
        ),
        PATCH.fwd_hooks,
        lambda bridge, tokens, **mask: li.teacher_forced_log_probs(bridge, tokens, PATCH, **mask),
        lambda bridge, tokens, **mask: li.generate(bridge, tokens, max_new_tokens=1, **mask),
    ],
    ids=["lens", "cache", "hooks", "teacher forcing", "generation"],
)
def test_padding_without_a_mask_is_told_once(read, side):
    bridge = shared_bridge("llama")
    tokens, mask = padded(bridge, side)
    with pytest.warns(UserWarning, match=r"1 of 2 rows.* row 0, .* attention_mask=") as caught:
        read(bridge, tokens)
    assert len(caught) == 1
    read(bridge, tokens, attention_mask=mask)


@pytest.mark.parametrize(
    "read",
    [
        li.lens_over,
        lambda bridge, tokens, **quiet: li.fit_affine_lens(bridge, tokens, holdout=2, **quiet),
        li.slope_map,
    ],
    ids=["lens", "fit", "slopes"],
)
def test_a_padded_tensor_of_many_texts_is_told_once(read):
    bridge = shared_bridge("llama")
    tokens, _ = padded(bridge, "right")
    with pytest.warns(UserWarning, match="1 of 2 rows.* row 0") as caught:
        read(bridge, tokens, progress=False)
    assert len(caught) == 1


@SIDES
@pytest.mark.parametrize("pad", ["bos", "eos", "both"])
def test_a_pad_token_that_also_marks_up_texts(side, pad):
    """As in GPT-2, where one token begins, ends and pads."""
    bridge = tiny_bridge("llama")
    tokenizer = bridge.tokenizer
    if pad == "both":
        tokenizer.bos_token = tokenizer.eos_token
    tokenizer.pad_token = tokenizer.bos_token if pad == "bos" else tokenizer.eos_token
    mark = torch.tensor([tokenizer.pad_token_id])
    some = random_tokens(2, 8)

    def rows(*marks):
        """Each row with that many marks on the side, as wide as the others."""
        parts = [(mark.repeat(n), row[n:]) for n, row in zip(marks, some, strict=True)]
        return torch.stack([torch.cat(part if side == "left" else part[::-1]) for part in parts])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for marks in ((0, 0), (1, 0), (1, 1), (3, 3)):
            warn_of_padding(bridge, rows(*marks))
    for marks in ((2, 0), (2, 1), (1, 5)):
        with pytest.warns(UserWarning, match="begin" if side == "left" else "end"):
            warn_of_padding(bridge, rows(*marks))


def test_a_pad_token_among_random_ids_is_no_padding():
    bridge = shared_bridge("llama")
    tokens = random_tokens(3, 8)
    pad = bridge.tokenizer.pad_token_id
    tokens[0, 0] = tokens[2, 7] = pad
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_padding(bridge, tokens)
        tokens[0, :2] = tokens[1, 4] = pad
        warn_of_padding(bridge, tokens)


def test_texts_and_lists_of_ids_are_padded_without_a_warning():
    bridge = shared_bridge("llama")
    out = li.generate(bridge, TEXTS, [None, PATCH], max_new_tokens=3, trajectory=True)
    li.teacher_forced_log_probs(
        bridge, out.whole.tokens, PATCH, attention_mask=out.whole.mask.int()
    )
    li.logit_lens(bridge, TEXTS)
    li.component_logits(bridge, TEXTS)
    gated = dataclasses.replace(PATCH, gate=2.0, gate_on="output")
    li.teacher_forced_log_probs(bridge, TEXTS, gated)


def test_hooks_made_for_columns_of_padding_find_them():
    bridge = shared_bridge("llama")
    tokens, mask = padded(bridge, "right")
    more = torch.zeros(len(tokens), 2, dtype=torch.long)
    wide, wide_mask = torch.cat([tokens, more], dim=1), torch.cat([mask, more], dim=1)
    read = []
    for text, real in ((tokens, mask), (wide, wide_mask)):
        with bridge.hooks(fwd_hooks=PATCH.fwd_hooks(bridge, text, attention_mask=real)):
            read.append(li.logit_lens(bridge, text, attention_mask=real).entropy)
    narrow, found = read
    torch.testing.assert_close(
        found[..., : tokens.shape[1]], narrow, rtol=0, atol=1e-9, equal_nan=True
    )


def test_padding_beyond_the_context_is_cut_off_under_hooks_too():
    bridge = shared_bridge("gpt2")
    n_ctx = int(bridge.cfg.n_ctx)
    tokens = torch.zeros(1, n_ctx + 3, dtype=torch.long)
    tokens[0, :5] = random_tokens(5)
    mask = (torch.arange(n_ctx + 3) < 5)[None].long()
    with bridge.hooks(fwd_hooks=[("hook_embed", lambda tensor, hook: tensor)]):
        assert li.logit_lens(bridge, tokens, attention_mask=mask).tokens.shape == (1, 5)
