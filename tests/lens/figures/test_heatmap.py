"""Heat maps show the trajectory's own numbers, row by row."""

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from lens_interventions.drawing.wrapped import stretches
from lens_interventions.lens.logit_lens import logit_lens
from lens_interventions.lens.statistics import STATISTICS, drawn
from tests.support.figures import heat, numbers, outlined_cells, position
from tests.support.tiny import shared_bridge

# Statistics with several values a cell, which a cell's colour cannot show.
SEVERAL = {"top_ids", "top_logits"}


def test_every_statistic_has_a_figure(trajectory):
    held = {name for name, statistic in STATISTICS.items() if statistic.held}
    assert set(drawn()) == held - SEVERAL | {"top1"}
    for name in drawn():
        assert isinstance(trajectory.plot(name), go.Figure)


@pytest.mark.parametrize("name", [name for name in drawn() if name != "top1"])
def test_cells_hold_the_statistic(trajectory, name):
    figure = trajectory.plot(name, include_input=True)
    values = trajectory.statistic(name)[:, 0]
    values = values[..., 0] if values.ndim == 3 else values
    # The file holds four decimals.
    np.testing.assert_allclose(numbers(heat(figure).z), position(name, values), atol=5.1e-5)


def test_top1_is_coloured_by_the_logit_of_the_guess(trajectory):
    figure = trajectory.plot_top1(include_input=True)
    np.testing.assert_allclose(
        numbers(heat(figure).z), trajectory.top_logits[:, 0, :, 0].numpy(), atol=5.1e-5
    )


def test_the_last_layer_is_at_the_top(trajectory):
    axis = trajectory.plot("kl_final").layout.yaxis
    assert axis.range[0] < axis.range[1]
    assert list(axis.ticktext) == ["input", "1", "2", "final"]


def test_outlines_are_where_the_guess_is_the_final_one(trajectory):
    figure = trajectory.plot("kl_final")
    expected = {tuple(cell) for cell in trajectory.agrees_final[:, 0].nonzero().tolist()}
    assert outlined_cells(figure) == expected


def test_a_prompt_of_a_batch_is_shown_without_padding(trajectory):
    length = int(trajectory.mask[1].sum())
    figure = trajectory.plot("kl_final", batch=1)
    assert len(figure.layout.xaxis.ticktext) == length
    expected = trajectory.kl_final[:, 1, :length]
    np.testing.assert_allclose(numbers(heat(figure).z), expected, atol=5.1e-5)


def test_a_missing_value_is_an_empty_cell(ended):
    figure = ended.plot("next_rank")
    z = numbers(heat(figure).z)
    assert np.isnan(z[:, -1]).all()
    assert np.isfinite(z[:, :-1]).all()
    assert figure.layout.xaxis2.ticktext[-1] == ""
    assert "–" in heat(figure).customdata[0][-1]


@pytest.fixture(scope="module")
def long():
    """A text of 100 tokens, more than fit on one line with their guesses."""
    return logit_lens(shared_bridge("llama"), torch.arange(100)[None] % 90 + 4)


def texts(figure):
    """How many cells have a text."""
    return sum(len(trace.x) for trace in figure.data if trace.name == "guesses")


def test_a_long_text_is_wrapped_and_every_cell_keeps_its_guess(long):
    figure = long.plot("kl_final", include_input=True)
    maps = [trace for trace in figure.data if trace.type == "heatmap"]
    assert [len(trace.z[0]) for trace in maps] == [33, 34, 33]
    joined = np.concatenate([numbers(trace.z) for trace in maps], axis=1)
    np.testing.assert_allclose(joined, position("kl_final", long.kl_final[:, 0]), atol=5.1e-5)
    assert texts(figure) == joined.size
    # One colour scale, and a shorter stretch has cells of the same width.
    assert len({(trace.zmin, trace.zmax) for trace in maps}) == 1
    assert [trace.showscale for trace in maps] == [True, False, False]
    width = figure.layout.xaxis3.domain[1] / 34
    assert figure.layout.xaxis.domain[1] / 33 == pytest.approx(width)
    # From the top down, without overlap.
    tops = [axis.domain for axis in figure.select_yaxes()]
    assert tops[0][0] > tops[1][1] > tops[1][0] > tops[2][1]


def test_labels_of_a_wrapped_text_are_its_tokens_in_order(long):
    figure = long.plot("kl_final")
    axes = [figure.layout[f"xaxis{number}"] for number in ("", 3, 5)]
    shown = [text for axis in axes for text in axis.ticktext]
    assert shown == list(long.plot("kl_final", cell_width=12).layout.xaxis.ticktext)


def test_a_figure_without_guesses_says_so(long):
    narrow = long.plot("kl_final", cell_width=12)
    assert texts(narrow) == 0
    assert "too narrow to write each layer's top guess" in narrow.layout.title.text.replace(
        "<br>", " "
    )
    assert "too narrow" not in long.plot("kl_final").layout.title.text


@pytest.mark.parametrize(("points", "marked"), [([1, 2], False), ([1, -1], True)])
def test_marks_of_right_guesses_are_explained_where_there_are_any(points, marked):
    read = logit_lens(shared_bridge("llama"), "the quick brown fox", points=points)
    assert ("(*)" in read.plot("kl_final").layout.title.text) == marked


@pytest.mark.parametrize(("columns", "lengths"), [(48, [48]), (49, [24, 25]), (400, [400])])
def test_stretches_are_about_equally_long_and_not_without_end(columns, lengths):
    parts = stretches(columns)
    assert [part.stop - part.start for part in parts] == lengths
    assert parts[0].start == 0
    assert parts[-1].stop == columns
