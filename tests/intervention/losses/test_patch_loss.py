"""The loss of texts under patches, held to a run for each prediction."""

import dataclasses

import numpy as np
import pytest
import torch

import lens_interventions as li
from lens_interventions.intervention.losses.loss_sums import require_finite
from lens_interventions.intervention.pieces import piece_length
from tests.support.reference_intervention import patched_logits
from tests.support.tiny import random_tokens, shared_bridge, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact", "without_gradients", "unrounded")

PATCH = li.NextTokenPatch(layer=1, strength=0.5, first_position=1)
CONTROL = dataclasses.replace(PATCH, source="current", mode="add", scale="norm")


def nats(logits, tokens):
    return -logits[:-1].log_softmax(-1).gather(-1, tokens[1:, None])[:, 0]


def completes_a_pair(tokens):
    """Whether each next token followed the token before it earlier in the text."""
    pairs = list(zip(tokens.tolist(), tokens[1:].tolist(), strict=False))
    return torch.tensor([pair in pairs[:i] for i, pair in enumerate(pairs)])


@pytest.mark.parametrize("bridge", ["gpt2", "gemma2"], indirect=True)
def test_losses_are_those_of_a_run_for_each_prediction(bridge):
    texts = [torch.cat([part := random_tokens(5), part]), random_tokens(7)]
    found = li.patch_loss(
        bridge, texts, [PATCH, CONTROL], scopes=["all", "copyable", "other"], progress=False
    )
    assert found.scopes == ("all", "copyable", "other")
    for row, tokens in enumerate(texts):
        copied = completes_a_pair(tokens)
        each = [nats(bridge(tokens[None])[0], tokens)]
        each += [nats(patched_logits(bridge, tokens, patch), tokens) for patch in found.patches]
        for place, where in enumerate((torch.ones_like(copied), copied, ~copied)):
            clean, *patched = (float(losses[where].sum()) for losses in each)
            assert found.counts[row, place] == int(where.sum())
            assert found.clean[row, place] == pytest.approx(clean)
            assert found.losses[row, place].tolist() == pytest.approx(patched)


def test_a_long_text_is_read_in_pieces_and_counts_once(llama):
    text = random_tokens(10)
    found = li.patch_loss(llama, [text], PATCH, max_length=4, progress=False)
    pieces = [text[:4], text[4:8], text[8:]]
    expected = sum(nats(patched_logits(llama, piece, PATCH), piece).sum() for piece in pieces)
    assert found.losses.shape == (1, 1, 1)
    assert found.losses.item() == pytest.approx(float(expected))
    assert found.counts.item() == sum(len(piece) - 1 for piece in pieces)


def test_random_draws_depend_on_the_text_alone(llama):
    texts = [random_tokens(6) for _ in range(3)]
    patch = dataclasses.replace(PATCH, source="random", scale="norm")
    losses = li.patch_loss(llama, texts, patch, progress=False).losses
    turned = li.patch_loss(llama, texts[::-1], patch, progress=False).losses
    np.testing.assert_allclose(turned[::-1], losses, rtol=1e-12)
    alone = li.patch_loss(llama, texts[1:2], patch, progress=False).losses
    np.testing.assert_allclose(alone, losses[1:2], rtol=1e-12)
    common = -li.teacher_forced_log_probs(llama, torch.stack(texts), patch).sum(-1)
    assert not np.allclose(common, losses[:, 0, 0])


def test_hooks_that_go_by_position_are_in_every_run(llama, tmp_path):
    texts = [random_tokens(n) for n in (9, 5)]
    hooks = [("blocks.2.hook_attn_out", lambda value, hook: 0.5 * value)]
    found = li.patch_loss(llama, texts, PATCH, fwd_hooks=hooks, progress=False)
    for row, text in enumerate(texts):
        clean, patched = -li.teacher_forced_log_probs(
            llama, text, [None, PATCH], fwd_hooks=hooks
        ).sum((1, 2))
        assert found.clean[row, 0] == pytest.approx(float(clean))
        assert found.losses[row, 0, 0] == pytest.approx(float(patched))
    plain = li.patch_loss(llama, texts, PATCH, progress=False)
    assert not np.allclose(plain.clean, found.clean)
    with pytest.raises(ValueError, match="lambda"):
        li.patch_loss(
            llama, texts, PATCH, fwd_hooks=hooks, checkpoint=tmp_path / "sums", progress=False
        )


def test_a_hook_that_looks_along_positions_sees_each_text_alone(llama):
    texts = [random_tokens(n) for n in (9, 5)]
    hooks = [("blocks.0.hook_attn_out", lambda value, hook: value - value.mean(1, keepdim=True))]
    with llama.hooks(fwd_hooks=hooks):
        found = li.patch_loss(llama, texts, PATCH, progress=False)
        alone = [li.patch_loss(llama, [text], PATCH, progress=False) for text in texts]
    assert found.clean[:, 0].tolist() == pytest.approx([each.clean.item() for each in alone])
    assert found.losses.ravel() == pytest.approx([each.losses.item() for each in alone])


def test_numbered_positions_need_one_text_that_is_long_enough(llama):
    patch = dataclasses.replace(PATCH, positions=[40])
    texts = [*(random_tokens(5) for _ in range(110)), random_tokens(60)]
    li.patch_loss(llama, texts, patch, progress=False)  # a warning would be an error
    with pytest.warns(UserWarning, match="changes nothing") as said:
        li.patch_loss(llama, texts[:-1], patch, progress=False)
    assert len(said) == 1


def test_a_loss_that_counts_is_finite(llama):
    def lost(site, *_):
        return torch.full_like(site.resid, torch.nan)

    with pytest.raises(ValueError, match="is not a number"):
        li.patch_loss(
            llama, [random_tokens(6)], dataclasses.replace(PATCH, mode=lost), progress=False
        )


def test_losses_that_are_not_finite_are_told_apart():
    with pytest.raises(ValueError, match="a token in it has no probability"):
        require_finite(torch.tensor([[1.0, torch.inf]]))
    with pytest.raises(ValueError, match="not a number"):
        require_finite(torch.tensor([[1.0, torch.nan]]))


def test_the_table_resamples_texts_and_pairs_differences(llama):
    texts = [random_tokens(9) for _ in range(6)]
    found = li.patch_loss(llama, texts, [PATCH, CONTROL], progress=False)

    def expected(totals, seed=0):
        return li.intervals.mean_interval(
            totals, found.counts[:, 0], rng=np.random.default_rng(seed)
        )

    frame = found.to_dataframe()
    assert frame[["patch", "label", "n"]].to_dict("list") == {
        "patch": [0, 1],
        "label": ["interpolate, scale raw, true", "add, scale norm, current"],
        "n": [6, 6],
    }
    for number, row in frame.iterrows():
        loss = expected(found.losses[:, 0, number])
        # Sums in another order.
        assert (row["loss"], row["loss_low"], row["loss_high"]) == pytest.approx(
            (loss.estimate, loss.low, loss.high), rel=1e-12
        )
        change = expected(found.losses[:, 0, number] - found.clean[:, 0])
        assert (row["difference"], row["difference_low"], row["difference_high"]) == pytest.approx(
            (change.estimate, change.low, change.high), rel=1e-12
        )
        assert row["clean"] == found.clean[:, 0].sum() / found.counts[:, 0].sum()
        assert row["predictions"] == found.counts[:, 0].sum()
    row = found.to_dataframe(minus=1, seed=3).iloc[0]
    between = expected(found.losses[:, 0, 0] - found.losses[:, 0, 1], seed=3)
    assert (row["difference"], row["difference_low"]) == pytest.approx(
        (between.estimate, between.low), rel=1e-12
    )
    for minus in (2, True):
        with pytest.raises(ValueError, match=f"number, from 0 to 1; got {minus}"):
            found.to_dataframe(minus=minus)
    with pytest.raises(ValueError, match="no other to compare"):
        dataclasses.replace(found, patches=(PATCH,), losses=found.losses[..., :1]).plot(minus=0)


def test_a_file_of_sums_is_for_these_patches(llama, tmp_path):
    texts, file = [random_tokens(9) for _ in range(2)], tmp_path / "sums.jsonl"
    found = li.patch_loss(llama, texts, PATCH, checkpoint=file, progress=False)
    again = li.patch_loss(llama, [*texts, random_tokens(5)], PATCH, checkpoint=file, progress=False)
    assert again.losses[:2].tolist() == found.losses.tolist()
    assert len(file.read_text().splitlines()) == 4  # what was measured, and three texts
    with pytest.raises(ValueError, match="differs in patches"):
        li.patch_loss(llama, texts, CONTROL, checkpoint=file, progress=False)


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("patches", [[], None, [PATCH, None]])
def test_patches_are_given(llama, patches):
    with pytest.raises(ValueError, match="give one or more patches"):
        li.patch_loss(llama, [random_tokens(5)], patches, progress=False)


def test_a_patch_that_needs_a_prompt_is_refused(llama):
    patch = dataclasses.replace(PATCH, positions="generated")
    with pytest.raises(ValueError, match="these texts have none"):
        li.patch_loss(llama, [random_tokens(5)], patch, progress=False)


def test_a_text_without_a_prediction_that_counts(llama):
    with pytest.raises(ValueError, match="no text with a token to predict"):
        li.patch_loss(llama, [torch.tensor([5])], PATCH, progress=False)


def test_the_figure_names_patches_by_what_differs(llama):
    texts = [random_tokens(9).repeat(2) for _ in range(4)]
    patches = [PATCH, dataclasses.replace(PATCH, layer=2), CONTROL]
    found = li.patch_loss(llama, texts, patches, scopes=["other", "copyable"], progress=False)
    figure = found.plot(minus=0)
    names = ["layer 2, interpolate, scale raw, true", "layer 1, add, scale norm, current"]
    (points,) = figure.data
    assert list(points.y) == [f"{scope}: {name}" for scope in found.scopes for name in names]
    frame = found.to_dataframe(minus=0).set_index(["scope", "patch"])
    rows = frame.loc[[(scope, patch) for scope in found.scopes for patch in (1, 2)]]
    assert points.x == tuple(rows["difference"])
    ends = rows["difference_high"] - rows["difference"]
    assert points.error_x.array == pytest.approx(ends.tolist())
    assert "layer 1, interpolate, scale raw, true" in figure.layout.title.text
    assert "without a patch" in found.plot(theme="dark").layout.title.text
    assert figure.layout.title.subtitle.text == "Bars are 95% bootstrap intervals over texts."


def test_the_figure_shows_names_and_not_their_markup(llama):
    """Plotly would read <lambda> as a tag."""
    patches = [PATCH, dataclasses.replace(PATCH, source=lambda site: site.resid)]
    found = li.patch_loss(llama, [random_tokens(9)], patches, progress=False)
    figure = found.plot(minus=1)
    shown = [figure.layout.title.text, *found.plot().data[0].y, *found.plot().data[0].customdata]
    assert sum("&lt;lambda&gt;" in text for text in shown) == 3
    assert not any("<lambda>" in text for text in shown)


def not_of_nine(tokens, nats):
    return tokens[1:] != 9


def test_a_token_without_a_probability_matters_only_where_it_counts():
    bridge, text = tiny_bridge("gptj"), torch.tensor([5, 9, 6, 7, 9, 8])
    bridge.b_U.data[9] = -torch.inf
    found = li.patch_loss(bridge, [text], PATCH, scopes=[not_of_nine], progress=False)
    nats = -li.teacher_forced_log_probs(bridge, text[None])[0]
    expected = float(nats[text[1:] != 9].sum())
    assert float(found.clean[0, 0]) == pytest.approx(expected, abs=1e-9)
    with pytest.raises(ValueError, match="a loss is infinite"):
        li.patch_loss(bridge, [text], PATCH, progress=False)


def test_sums_of_pieces_of_another_length_are_others(llama, tmp_path):
    options = {"checkpoint": tmp_path / "sums", "progress": False}
    li.patch_loss(llama, [random_tokens(20)], PATCH, max_length=10, **options)
    with pytest.raises(ValueError, match="differs in max_length"):
        li.patch_loss(llama, [random_tokens(20)], PATCH, max_length=12, **options)


def test_a_text_as_long_as_what_is_read_at_a_time_is_whole(llama):
    """So the patch's positions may be numbers."""
    patch = dataclasses.replace(PATCH, positions=(1,))
    tokens = random_tokens(1, 8)
    found = li.patch_loss(llama, [tokens], patch, max_length=8, progress=False)
    expected = -li.teacher_forced_log_probs(llama, tokens, patch).double().sum()
    assert found.losses.item() == pytest.approx(float(expected))
    with pytest.raises(ValueError, match="positions count from the start of a text"):
        li.patch_loss(llama, [tokens], patch, max_length=7, progress=False)


def test_texts_are_read_512_tokens_at_a_time_by_default():
    assert piece_length(tiny_bridge("llama", max_position_embeddings=600), None) == 512
    assert piece_length(shared_bridge("llama"), None) == int(shared_bridge("llama").cfg.n_ctx)
