"""Which rows and which token a grid shows, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest

from lens_interventions.lens.logit_lens import logit_lens
from lens_interventions.model.points import point_name, select_points
from tests.support.figures import deep_trajectory, heat, numbers, position
from tests.support.tiny import shared_bridge, tiny_bridge


def test_the_input_has_a_row_in_its_own_figures_only(trajectory):
    def rows(name, **options):
        return trajectory.plot(name, **options).layout.yaxis.ticktext

    for name in ("kl_final", "kl_input", "input_rank"):
        assert rows(name)[0] == "input"
        assert rows(name, include_input=False)[0] == "1"
    for name in ("top1", "final_rank", "next_rank", "entropy"):
        assert rows(name)[0] == "1"
        assert rows(name, include_input=True)[0] == "input"


def test_every_nth_layer_keeps_the_last_and_ignores_the_input():
    deep = deep_trajectory(points=12, columns=3)
    without = deep.plot("kl_final", every=3, include_input=False).layout.yaxis.ticktext
    assert list(without) == ["1", "4", "7", "10", "final"]
    assert list(deep.plot("kl_final", every=3).layout.yaxis.ticktext) == ["input", *without]


def test_many_layers_are_thinned_by_themselves():
    rows = deep_trajectory(points=81, columns=3).plot("top1").layout.yaxis.ticktext
    assert len(rows) <= 33
    assert rows[-1] == "final"


def test_mid_block_points_have_rows():
    read = logit_lens(shared_bridge("llama"), "the fox", incl_mid=True)
    rows = read.plot("kl_final").layout.yaxis.ticktext
    assert list(rows) == ["input", "0 mid", "1", "1 mid", "2", "2 mid", "final"]


def test_thinned_layers_keep_all_their_points():
    text = "the quick brown fox"
    deep = logit_lens(tiny_bridge("llama", num_hidden_layers=18), text, incl_mid=True)
    thinned = select_points(18, every=2, incl_mid=True)
    expected = ["input", *map(point_name, thinned[1:])]
    assert expected[:4] == ["input", "0 mid", "2", "2 mid"]
    # 36 rows without the input's are more than fit, so every second layer is left out by default.
    for every in (2, None):
        assert list(deep.plot("kl_final", every=every).layout.yaxis.ticktext) == expected


def test_watched_tokens_are_chosen_by_id_or_text(trajectory):
    for token in (" mean", trajectory.watched[1]):
        figure = trajectory.plot("watched_rank", token=token, include_input=True)
        expected = position("watched_rank", trajectory.watched_rank[:, 0, :, 1])
        np.testing.assert_allclose(numbers(heat(figure).z), expected, atol=5.1e-5)
        assert "·mean" in figure.layout.title.text


def test_watched_tokens_that_read_alike_are_chosen_by_name_or_id(llama):
    read = logit_lens(llama, "the people say", watch=[5, 6])
    piece = "\N{REPLACEMENT CHARACTER}"
    alike = replace(read, vocab={**read.vocab, 5: piece, 6: piece})
    expected = numbers(heat(alike.plot("watched_rank", token=6)).z)
    name = f"{piece} 6"
    assert f"watched_rank[{name}]" in alike.to_dataframe()
    np.testing.assert_array_equal(numbers(heat(alike.plot("watched_rank", token=name)).z), expected)
    with pytest.raises(ValueError, match=f"several watched tokens read '{piece}'"):
        alike.plot("watched_rank", token=piece)


@pytest.mark.parametrize(
    ("statistic", "options", "message"),
    [
        ("loss", {}, "there is no figure of 'loss'"),
        ("top_ids", {}, "there is no figure of 'top_ids'"),
        ("watched_rank", {"token": " lazy"}, "' lazy' was not watched"),
        ("kl_final", {"token": " say"}, "token= goes with watched_rank"),
        ("top1", {"batch": 2}, "prompt 2 does not exist"),
        ("top1", {"every": 0}, "every must be at least 1"),
        ("top1", {"cell_width": 0}, "at least 2 pixels"),
    ],
)
def test_what_is_not_there_is_named(trajectory, statistic, options, message):
    with pytest.raises(ValueError, match=message):
        trajectory.plot(statistic, **options)


def test_statistics_that_were_not_asked_for_are_named(ended):
    for name in ("watched_rank", "js_final", "kl_final_reverse"):
        with pytest.raises(ValueError, match=f"{name} was not computed"):
            ended.plot(name)
