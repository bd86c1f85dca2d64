"""The grid of cells: its labels, the text in it, its outlines."""

import math
from dataclasses import replace

import plotly.graph_objects as go
import pytest
import torch

from lens_interventions import plots
from lens_interventions.drawing.colours import LINES
from lens_interventions.drawing.labels import markup, visible
from lens_interventions.lens.logit_lens import logit_lens
from tests.support.figures import TEXTS, deep_trajectory
from tests.support.tiny import shared_bridge


def test_a_difference_is_written_in_the_themes_text(trajectory):
    other = replace(trajectory, top_ids=trajectory.top_ids.roll(1, dims=2))
    figure = plots.plot_side_by_side(trajectory, other, "kl_final")
    difference = [t for t in figure.data if isinstance(t, go.Heatmap)][-1]
    texts = [t for t in figure.data if t.name == "guesses" and t.yaxis == difference.yaxis]
    assert texts
    assert all(trace.textfont.color is None for trace in texts)


def test_small_values_keep_their_digits(trajectory):
    small = replace(trajectory, entropy=trajectory.entropy * 1e-7)
    (cells,) = (t for t in small.plot("entropy").data if isinstance(t, go.Heatmap))
    drawn = torch.tensor([list(row) for row in cells.z], dtype=torch.float64)
    expected = small.entropy[1:, 0].double()  # the input is not drawn
    # Six digits of each.
    torch.testing.assert_close(drawn, expected, rtol=1e-5, atol=0)


def test_outlines_of_empty_cells_are_no_line_of_a_curve(ended):
    figure = replace(ended, next_rank=torch.full_like(ended.next_rank, -1)).plot("next_rank")
    lines = [trace.line.color for trace in figure.data if trace.name == "outline"]
    assert lines
    assert not {None, *LINES} & set(lines)


def test_repeated_tokens_stay_columns_of_their_own(trajectory):
    axis = trajectory.plot("top1").layout.xaxis
    tokens = trajectory.tokens[0].tolist()
    assert len(set(tokens)) < len(tokens)
    assert list(axis.tickvals) == list(range(len(tokens)))
    assert list(axis.ticktext) == [markup(visible(trajectory.vocab[token])) for token in tokens]


def test_labels_tilt_and_mark_where_the_model_was_right(trajectory):
    # A model that is always right about the next token but once.
    following = trajectory.next_tokens[0].tolist()
    rank = trajectory.next_rank.clone()
    rank[-1, 0] = 0
    rank[-1, 0, 2] = 1
    figure = replace(trajectory, next_rank=rank).plot("top1")
    layout = figure.layout
    texts = [markup(visible(trajectory.vocab[token])) for token in following]
    expected = [text if i == 2 else f"(*) {text}" for i, text in enumerate(texts)]
    assert list(layout.xaxis2.ticktext) == expected
    assert (layout.xaxis.side, layout.xaxis2.side) == ("bottom", "top")
    assert layout.xaxis.tickangle == layout.xaxis2.tickangle == -45
    # Plotly draws an axis only where a trace uses it.
    assert any(trace.xaxis == "x2" for trace in figure.data)


def test_without_the_last_point_nothing_is_marked_right():
    cut = logit_lens(shared_bridge("llama"), TEXTS[0], points=[0, 1])
    labels = cut.plot("top1").layout.xaxis2.ticktext
    assert not any("(*)" in label for label in labels)


@pytest.mark.parametrize("columns", [1, 10, 40, 200, 400])
def test_cells_have_text_while_it_can_be_read(columns):
    figure = deep_trajectory(points=4, columns=columns).plot("top1")
    width = figure.layout.xaxis.range[1] - figure.layout.xaxis.range[0]
    margin = figure.layout.margin
    cell = (figure.layout.width - margin.l - margin.r) / width
    texts = [trace for trace in figure.data if trace.name == "guesses"]
    if columns <= 200:  # in stretches of 40
        assert all(trace.textfont.size >= 9 for trace in texts)
        assert texts
        # Letters of the font are about 0.6 of its size wide.
        longest = max(len(text) for trace in texts for text in trace.text)
        assert 0.6 * texts[0].textfont.size * longest <= cell + 1
    else:
        assert not texts
    # Labels that are tilted by 45 degrees stand apart if lines of them fit side by side.
    assert cell >= 1.15 * figure.layout.xaxis.tickfont.size * math.sqrt(2)
