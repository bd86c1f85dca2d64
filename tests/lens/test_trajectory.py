"""The result of a lens: cutting, tabulating, keeping."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lens_interventions import plots
from lens_interventions.lens.logit_lens import logit_lens
from lens_interventions.lens.trajectory import Trajectory
from tests.support.tiny import shared_bridge

TEXTS = ["the quick brown fox jumps", "people say"]


@pytest.fixture(scope="module")
def trajectory():
    return logit_lens(
        shared_bridge("llama"), TEXTS, watch=[" say", 7], divergences=("kl", "js"), compare_with=1
    )


def test_saving_keeps_everything(trajectory, tmp_path):
    path = tmp_path / "trajectory.safetensors"
    trajectory.save(path)
    loaded = Trajectory.load(path)
    for name, value in trajectory.tensors().items():
        assert torch.equal(loaded.tensors()[name].nan_to_num(-7), value.nan_to_num(-7)), name
    for name in ("points", "vocab", "watched", "compare_with", "settings"):
        assert getattr(loaded, name) == getattr(trajectory, name)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    with pytest.raises(FileNotFoundError, match="no trajectory at"):
        Trajectory.load(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="not a saved trajectory"):
        Trajectory.load(path)
    path.write_text("not tensors")
    with pytest.raises(ValueError, match="is not a saved trajectory"):
        Trajectory.load(path)


def test_a_range_of_positions(trajectory):
    part = trajectory[2:4]
    assert torch.equal(part.tokens, trajectory.tokens[:, 2:4])
    assert torch.equal(part.top_ids, trajectory.top_ids[:, :, 2:4])
    assert torch.equal(part.watched_rank, trajectory.watched_rank[:, :, 2:4])
    assert torch.equal(trajectory[-1].tokens, trajectory.tokens[:, -1:])
    assert torch.equal(trajectory[-1].top_ids, trajectory.top_ids[:, :, -1:])
    with pytest.raises(IndexError, match="position 99 is out of range"):
        trajectory[99]


def test_leaders_are_those_of_the_prompts_own_columns(trajectory):
    length = int(trajectory.mask[1].sum())
    assert length < trajectory.tokens.shape[1]
    expected = list(dict.fromkeys(trajectory.top_ids[:, 1, length - 1, 0].tolist()))
    assert trajectory.leaders(-1, batch=1) == trajectory.leaders(length - 1, batch=1) == expected
    with pytest.raises(IndexError, match=f"is not one of prompt 1's {length} columns"):
        trajectory.leaders(length, batch=1)


def test_a_range_without_a_token_is_not_drawn(trajectory):
    for part in (trajectory[99:], trajectory[3:3]):
        for plot in (part.plot, part.commitment().plot):
            with pytest.raises(ValueError, match="there is no position to show"):
                plot()


def test_one_prompt_of_the_batch(trajectory):
    alone = trajectory.prompt(1)
    length = int(trajectory.mask[1].sum())
    assert alone.tokens.tolist() == [trajectory.tokens[1, :length].tolist()]
    assert alone.mask.all()
    assert torch.equal(alone.kl_input, trajectory.kl_input[:, 1:, :length])


def test_a_file_that_cannot_be_written_is_an_error_of_the_file_system(trajectory, tmp_path):
    with pytest.raises(OSError, match="cannot be written"):
        trajectory.save(tmp_path)


def test_the_dataframe_has_a_row_for_every_cell(trajectory):
    frame = trajectory.to_dataframe()
    assert len(frame) == len(trajectory.points) * int(trajectory.mask.sum())
    row = frame[(frame.point == "2_pre") & (frame.batch == 0) & (frame.pos == 3)].iloc[0]
    point = trajectory.points.index("2_pre")
    assert row.token == trajectory.vocab[trajectory.tokens[0, 3].item()]
    assert row.next_token_id == trajectory.tokens[0, 4]
    assert row.top_token == trajectory.vocab[trajectory.top_ids[point, 0, 3, 0].item()]
    for name in ("kl_final", "kl_compare", "js_input", "next_rank", "entropy"):
        assert row[name] == trajectory.statistic(name)[point, 0, 3]
    assert row["watched_rank[ say]"] == trajectory.watched_rank[point, 0, 3, 0]


def test_the_frame_of_likeliest_tokens_has_a_row_for_each(trajectory):
    frame = trajectory.top_to_dataframe()
    top_k = trajectory.top_ids.shape[-1]
    assert top_k > 1
    assert len(frame) == len(trajectory.points) * int(trajectory.mask.sum()) * top_k
    cell = frame[(frame.point == "2_pre") & (frame.batch == 1) & (frame.pos == 3)]
    point = trajectory.points.index("2_pre")
    column = trajectory.positions[1].tolist().index(3)
    ids = trajectory.top_ids[point, 1, column]
    assert list(cell["rank"]) == list(range(top_k))
    assert list(cell.token_id) == ids.tolist()
    assert list(cell.token) == [trajectory.vocab[i] for i in ids.tolist()]
    assert list(cell.logit) == trajectory.top_logits[point, 1, column].tolist()
    assert list(cell.log_prob) == trajectory.top_log_probs[point, 1, column].tolist()
    first = frame[frame["rank"] == 0]
    assert list(first.token) == list(trajectory.to_dataframe().top_token)


def test_means_over_the_frame_leave_out_what_does_not_exist(trajectory):
    frame = trajectory.to_dataframe()
    known = trajectory.next_tokens >= 0
    assert (
        0
        < frame.next_rank.isna().sum()
        == len(trajectory.points) * int((trajectory.mask & ~known).sum())
    )
    for name in ("next_rank", "agrees_next", "next_log_prob"):
        expected = trajectory.statistic(name)[:, known].double().mean()
        assert frame[name].mean() == pytest.approx(float(expected))


def test_a_token_that_is_watched_twice_has_one_column():
    watching = logit_lens(shared_bridge("llama"), [4, 5, 6], watch=[7, 8, 7])
    frame = watching.to_dataframe()
    for i, token in enumerate(watching.watched):
        expected = watching.watched_rank[..., i].flatten().numpy()
        assert (frame[f"watched_rank[{watching.vocab[token]}]"] == expected).all()


def test_any_index_takes_a_column(trajectory):
    for index in (np.int64(3), torch.tensor(3), trajectory.entropy[0, 0].argmax() * 0 + 3):
        assert torch.equal(trajectory[index].tokens, trajectory.tokens[:, 3:4])


def test_a_range_of_columns_is_read_forwards(trajectory):
    assert torch.equal(trajectory[np.int64(1) : 6 : 2].tokens, trajectory.tokens[:, 1:6:2])
    for step in (-1, 0):
        with pytest.raises(ValueError, match=f"the step must be at least 1, got {step}"):
            trajectory[::step]
    with pytest.raises(TypeError, match="indexed by one position or a slice of them"):
        trajectory["a":]


def test_watched_tokens_that_read_the_same_keep_columns_of_their_own():
    bridge = shared_bridge("llama")
    watching = logit_lens(bridge, [4, 5, 6], watch=[7, 8, 9])
    alike = replace(watching, vocab=watching.vocab | {7: "\ufffd", 8: "\ufffd"})
    frame = alike.to_dataframe()
    for i, name in enumerate(["\ufffd 7", "\ufffd 8", watching.vocab[9]]):
        expected = watching.watched_rank[..., i].flatten().numpy()
        assert (frame[f"watched_rank[{name}]"] == expected).all()
    assert "\ufffd 8" in alike.plot("watched_rank", token=8).layout.title.text
    curves = plots.plot_position(alike, -1, ["watched_rank"]).data
    assert len({curve.name for curve in curves}) == len(curves)


def test_agreements_follow_the_ranks(trajectory):
    top = trajectory.top_ids[..., 0]
    assert torch.equal(trajectory.agrees_next, (top == trajectory.next_tokens) & (top >= 0))
    assert torch.equal(trajectory.agrees_input, (top == trajectory.tokens) & (top >= 0))
    assert trajectory.agrees_final[-1][trajectory.mask].all()
    assert not trajectory.agrees_final[:, ~trajectory.mask].any()


def test_statistics_by_name(trajectory):
    for name in ("top_ids", "final_rank", "kl_input", "js_compare"):
        assert trajectory.statistic(name) is getattr(trajectory, name)
    assert torch.equal(trajectory.statistic("agrees_next"), trajectory.agrees_next)
    there = trajectory.mask
    assert torch.equal(
        trajectory.statistic("top1")[:, there], trajectory.top_logits[..., 0][:, there]
    )
    with pytest.raises(ValueError, match="unknown statistic 'tokens'"):
        trajectory.statistic("tokens")
    with pytest.raises(ValueError, match="unknown statistic 'kl'"):
        trajectory.statistic("kl")
    with pytest.raises(ValueError, match="ask for it with"):
        trajectory.statistic("kl_final_reverse")
