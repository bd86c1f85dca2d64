"""What generation gives back: patches apart, texts, steps, and the lens at each of them."""

import pandas as pd
import pytest
import torch
from transformers import MaxLengthCriteria

import lens_interventions as li
from tests.support.exact import float64_softmax
from tests.support.tiny import shared_bridge

PROMPTS = [[5, 17, 4, 44, 17, 60, 9, 9, 31, 8], [33], [70, 70, 12, 99]]
PATCH = li.NextTokenPatch(layer=1, strength=0.5)
LABEL = "layer 1, interpolate, strength 0.5, true"


def test_several_patches_are_as_one_by_one():
    bridge = shared_bridge("gemma2")
    patches = [
        None,
        li.NextTokenPatch(layer=2, strength=0.5, window=3),
        li.NextTokenPatch(layer=(1, 2), strength=0.2, mode="add"),
        li.NextTokenPatch(layer=1, strength=0.5, source="random"),
    ]
    options = {"max_new_tokens": 6, "do_sample": True, "seed": 2}
    with float64_softmax():
        together = li.generate(bridge, PROMPTS, patches, **options)
        for index, patch in enumerate(patches):
            alone = li.generate(bridge, PROMPTS, patch, **options)
            compared = together.of_patch(index)
            assert compared.patches == (patch,)
            assert compared.texts == alone.texts
            assert compared.prompt_index.tolist() == [0, 1, 2]
            width = alone.tokens.shape[1]
            assert torch.equal(compared.tokens[:, :width], alone.tokens)
            assert (compared.tokens[:, width:] == -1).all()
            torch.testing.assert_close(
                compared.log_probs[:, :width], alone.log_probs, rtol=0, atol=1e-9, equal_nan=True
            )


def test_a_trajectory_has_no_points_inside_blocks():
    options = {"max_new_tokens": 1, "trajectory": {"incl_mid": True}}
    with pytest.raises(ValueError, match=r"not recorded at \['0_mid', .* choose other points"):
        li.generate(shared_bridge("llama"), PROMPTS, **options)


def test_trajectory_is_the_lens_at_each_step():
    bridge = shared_bridge("llama")
    with float64_softmax():
        out = li.generate(
            bridge,
            PROMPTS,
            [PATCH, None],
            max_new_tokens=5,
            stopping_criteria=[MaxLengthCriteria(13)],
            stop_at_eos=False,
            trajectory={"top_k": 3, "watch": [17], "points": [1, 2, "final_post"]},
        )
        assert out.trajectory.points == ("1_pre", "2_pre", "final_post")
        assert torch.equal(out.trajectory.mask, out.tokens >= 0)
        assert torch.equal(out.trajectory.next_tokens, out.tokens)
        torch.testing.assert_close(
            out.trajectory.next_log_prob[-1], out.log_probs, rtol=0, atol=1e-9, equal_nan=True
        )
        trajectory = out.of_patch(0).trajectory
        whole = out.of_patch(0).whole.tokens
        for row, start in enumerate(out.prompt_lengths[:3].tolist()):
            for new in range(int(out.lengths[row])):
                known = whole[row : row + 1, : start + new]
                with bridge.hooks(fwd_hooks=PATCH.fwd_hooks(bridge, known)):
                    read = li.logit_lens(
                        bridge, known, positions=-1, watch=[17], points=[1, 2, "final_post"]
                    )
                assert trajectory.tokens[row, new] == known[0, -1]
                assert trajectory.positions[row, new] == known.shape[1] - 1
                for name in ("entropy", "kl_final", "kl_input", "final_rank", "watched_log_prob"):
                    torch.testing.assert_close(
                        trajectory.statistic(name)[:, row, new],
                        read.statistic(name)[:, 0, 0],
                        rtol=0,
                        # KLs of tens of nats are differences of float64 sums of hundreds.
                        atol=1e-8,
                    )


def test_texts_and_frame():
    bridge = shared_bridge("llama")
    prompts = ["the people say", "plasma"]
    out = li.generate(bridge, prompts, [None, PATCH], max_new_tokens=6)
    for row in range(4):
        ids = out.tokens[row][out.tokens[row] >= 0]
        assert out.texts[row] == bridge.tokenizer.decode(ids, skip_special_tokens=True)
        expected = bridge.to_tokens(prompts[row % 2])[0].tolist()
        length = int(out.prompt_lengths[row])
        assert out.prompts[row, :length].tolist() == expected
        whole = out.whole.tokens[row][out.whole.mask[row]].tolist()
        assert whole == expected + ids.tolist()
    padded = out.whole.tokens[~out.whole.mask]
    assert padded.tolist() == [bridge.tokenizer.pad_token_id] * len(padded) != []
    with pytest.warns(UserWarning, match="end with the pad token"):
        li.logit_lens(bridge, out.whole.tokens)
    assert out.patch_index.tolist() == [0, 0, 1, 1]
    frame = out.to_dataframe()
    assert len(frame) == int(out.lengths.sum())
    assert (frame.label == [("no patch", LABEL)[i] for i in frame.patch]).all()
    assert list(frame[frame.label == LABEL].prompt.unique()) == [0, 1]
    assert (frame.seed == frame.prompt).all()
    for row, tokens in frame.groupby("row"):
        assert tokens.token_id.tolist() == out.tokens[row, : out.lengths[row]].tolist()
        assert tokens.token.tolist() == [bridge.tokenizer.decode([i]) for i in tokens.token_id]
    without = li.generate(bridge, prompts, max_new_tokens=1, prepend_bos=False)
    assert (without.prompt_lengths == out.prompt_lengths[:2] - 1).all()


def test_callback_gets_every_token():
    bridge = shared_bridge("llama")
    steps = []
    out = li.generate(
        bridge,
        PROMPTS,
        PATCH,
        max_new_tokens=6,
        stopping_criteria=[MaxLengthCriteria(14)],
        stop_at_eos=False,
        callback=steps.append,
    )
    tokens = torch.full_like(out.tokens, -1)
    for number, step in enumerate(steps):
        assert step.step == number
        tokens[step.rows, number] = step.tokens
        assert torch.equal(step.log_probs, out.log_probs[step.rows, number])
    assert torch.equal(tokens, out.tokens)
    assert len(steps[-1].rows) < len(steps[0].rows)


def test_patches_can_be_counted_from_the_end():
    found = li.generate(
        shared_bridge("llama"), [[5, 6, 7]], [None, PATCH], max_new_tokens=2, stop_at_eos=False
    )
    last = found.of_patch(-1)
    assert last.patches == (PATCH,)
    assert len(last.tokens) == 1
    assert torch.equal(last.log_probs, found.of_patch(1).log_probs)


def test_the_rows_of_one_patch_are_a_generation_of_it_alone(llama):
    both = li.generate(llama, [[5, 6]], [None, PATCH], max_new_tokens=2, stop_at_eos=False)
    alone = li.generate(llama, [[5, 6]], PATCH, max_new_tokens=2, stop_at_eos=False)
    for index in (1, -1):
        pd.testing.assert_frame_equal(both.of_patch(index).to_dataframe(), alone.to_dataframe())
    first = both.of_patch(-2)
    assert first.patches == (None,)
    assert torch.equal(first.tokens, both.of_patch(0).tokens)
    for index in (2, -3):
        with pytest.raises(IndexError, match="from 0 to 1"):
            both.of_patch(index)
