"""The residual stream of a text, whole and in chunks."""

import pytest
import torch
from transformers import DynamicCache

from lens_interventions.lens.logit_lens import logit_lens
from lens_interventions.model import capabilities, residuals
from lens_interventions.model.replaced_forwards import replaced_forwards
from lens_interventions.model.tokens import token_batch
from tests.support.clean import left_as_found
from tests.support.tiny import long_rope_bridge, shared_bridge, tiny_bridge
from tests.support.user_hooks import LASTING, push_first

TOKENS = torch.arange(5, 29).view(2, 12) * 7 % 97 + 4
# Models take attention's softmax in float32, where rows of other lengths round differently.
SHAPE_ATOL = 2e-5


def test_an_interrupted_reading_leaves_the_bridge_as_it_was():
    bridge = shared_bridge("llama")

    def interrupt(tensor, hook):
        raise KeyboardInterrupt

    with left_as_found(bridge), bridge.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", interrupt)]):
        with pytest.raises(KeyboardInterrupt):
            residuals.residuals(bridge, token_batch(bridge, TOKENS), ["0_pre", "final_post"])
        assert len(bridge.hook_dict["blocks.0.hook_resid_pre"].fwd_hooks) == 0


def test_a_long_text_in_chunks_is_the_text_whole(bridge, monkeypatch):
    """Beyond a length the blocks run on chunks, with a cache of keys and values."""
    texts = TOKENS.repeat(1, 3)
    whole = logit_lens(bridge, texts)
    monkeypatch.setattr(residuals, "_WHOLE", 16)
    monkeypatch.setattr(residuals, "_CHUNK_ROWS", 14)
    # Most chunks hold no position of the second reading.
    for positions in (None, (-3, None)):
        chunked = logit_lens(bridge, texts, positions=positions)
        expected = whole if positions is None else whole[-3:]
        for name, value in expected.tensors().items():
            if value.is_floating_point():
                torch.testing.assert_close(
                    chunked.tensors()[name], value, rtol=0, atol=SHAPE_ATOL, equal_nan=True
                )


@pytest.mark.parametrize("architecture", ["gpt2", "opt", "gpt_bigcode", "llama"])
@pytest.mark.parametrize("label", ["0_pre", "0_mid", "1_pre"])
def test_a_single_point_of_a_long_text_is_that_of_the_text_whole(architecture, label, monkeypatch):
    """Also the input, where the positions of later chunks are not known from any key."""
    bridge = shared_bridge(architecture)
    batch = token_batch(bridge, TOKENS.repeat(1, 3))
    (expected,) = residuals.residuals(bridge, batch, [label])
    monkeypatch.setattr(residuals, "_WHOLE", 16)
    monkeypatch.setattr(residuals, "_CHUNK_ROWS", 14)
    chunks = [streams[label] for _, streams in residuals.residual_chunks(bridge, batch, [label])]
    assert (len(chunks) == 1) is (label == "0_pre")
    torch.testing.assert_close(torch.cat(chunks, dim=1), expected, rtol=0, atol=SHAPE_ATOL)


def test_long_texts_alone_run_in_chunks(monkeypatch):
    """Two texts of 36 tokens, 14 rows at a time; hooks of the user see them whole."""
    bridge, texts = shared_bridge("llama"), TOKENS.repeat(1, 3)
    block, runs = bridge.blocks[0], []

    def counted(*args, **kwargs):
        runs.append(1)
        return type(block).forward(block, *args, **kwargs)

    def runs_of(tokens):
        runs.clear()
        with replaced_forwards([(block, counted)]):
            list(residuals.residual_chunks(bridge, token_batch(bridge, tokens), ["final_post"]))
        return len(runs)

    monkeypatch.setattr(residuals, "_WHOLE", 16)
    monkeypatch.setattr(residuals, "_CHUNK_ROWS", 14)
    runs_of(texts)  # checks of the model run it too, once
    assert runs_of(texts) == 6
    assert runs_of(texts[:, :16]) == 1
    with bridge.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", lambda tensor, hook: tensor)]):
        assert runs_of(texts) == 1


@pytest.mark.parametrize("bridge", ["gpt2", "llama", "gemma2"], indirect=True)
@pytest.mark.parametrize("positions", [None, -1])
def test_many_texts_are_read_few_at_a_time_with_the_same_numbers(bridge, positions, monkeypatch):
    texts = [TOKENS[0, :length].tolist() for length in (5, 12, 7, 12, 3)]
    together = logit_lens(bridge, texts, positions=positions)
    monkeypatch.setattr(residuals, "_WHOLE", 30)
    found = list(residuals.residual_pieces(bridge, token_batch(bridge, texts), ["final_post"]))
    shapes = [(first, start, tuple(s["final_post"].shape[:2])) for first, start, s in found]
    assert shapes == [(0, 0, (2, 12)), (2, 0, (2, 12)), (4, 0, (1, 3))]
    few = logit_lens(bridge, texts, positions=positions)
    for name, value in together.tensors().items():
        if value.is_floating_point():
            torch.testing.assert_close(
                few.tensors()[name], value, rtol=0, atol=SHAPE_ATOL, equal_nan=True
            )
        else:
            assert torch.equal(few.tensors()[name], value)
    with bridge.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", lambda tensor, hook: tensor)]):
        pieces = list(residuals.residual_pieces(bridge, token_batch(bridge, texts), ["0_pre"]))
    assert [tuple(streams["0_pre"].shape[:2]) for *_, streams in pieces] == [(5, 12)]


def test_a_residual_that_is_not_finite_is_named_by_its_text_and_column(monkeypatch):
    bridge = tiny_bridge("llama")
    bridge.W_E.data[7] = torch.nan
    monkeypatch.setattr(residuals, "_WHOLE", 8)
    with pytest.raises(ValueError, match="prompt 2, column 1:"):
        logit_lens(bridge, [[5, 6], [8, 9, 10], [11, 7, 12]])


@pytest.mark.parametrize("put_on", LASTING)
def test_a_long_text_under_a_hook_that_lasts_is_read_whole(put_on, monkeypatch):
    """In chunks, a hook made for whole texts would act once in each of them."""
    bridge, texts = shared_bridge("llama"), TOKENS.repeat(1, 3)
    monkeypatch.setattr(residuals, "_WHOLE", 16)
    monkeypatch.setattr(residuals, "_CHUNK_ROWS", 14)
    with left_as_found(bridge), put_on(bridge, 1, push_first):
        own = bridge(texts).log_softmax(-1)
        last = logit_lens(bridge, texts, points=[-1])
    expected = own.gather(-1, last.top_ids[0])
    torch.testing.assert_close(last.top_log_probs[0], expected, rtol=0, atol=SHAPE_ATOL)


@pytest.mark.parametrize("whole", [8, 512])
def test_padding_on_the_left_is_refused_whole_and_in_chunks(whole, monkeypatch):
    monkeypatch.setattr(residuals, "_WHOLE", whole)
    bridge = shared_bridge("llama")
    mask = torch.ones_like(TOKENS)
    mask[0, :3] = 0
    batch = token_batch(bridge, TOKENS, attention_mask=mask)
    with pytest.raises(ValueError, match="pad on the right"):
        list(residuals.residual_chunks(bridge, batch, ["0_pre"]))


def test_a_text_that_turns_other_rotary_frequencies_on_is_read_whole(monkeypatch):
    bridge, texts = long_rope_bridge(20), TOKENS.repeat(1, 3)
    whole = logit_lens(bridge, texts)
    monkeypatch.setattr(residuals, "_WHOLE", 8)
    monkeypatch.setattr(residuals, "_CHUNK_ROWS", 14)
    assert texts.shape[1] > 20
    torch.testing.assert_close(logit_lens(bridge, texts).entropy, whole.entropy)


class _EmptyCache(DynamicCache):
    """As with transformers 5.24, where the attention of TransformerLens 4.3 fills no cache."""

    def update(self, key_states, value_states, *_args, **_kwargs):
        return key_states, value_states


def test_an_empty_cache_is_noticed(monkeypatch):
    bridge = tiny_bridge("llama")  # which nothing is known of yet
    whole = logit_lens(bridge, TOKENS)
    monkeypatch.setattr(residuals, "_WHOLE", 8)
    monkeypatch.setattr(residuals, "_CHUNK_ROWS", 6)
    monkeypatch.setattr(residuals, "DynamicCache", _EmptyCache)
    monkeypatch.setattr(capabilities, "DynamicCache", _EmptyCache)
    torch.testing.assert_close(logit_lens(bridge, TOKENS).entropy, whole.entropy)
