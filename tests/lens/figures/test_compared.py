"""Trajectories side by side, positions through the layers, aggregates."""

from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from lens_interventions import plots
from lens_interventions.lens.aggregate import lens_over
from lens_interventions.lens.logit_lens import logit_lens
from tests.support.figures import TEXTS, deep_trajectory, numbers
from tests.support.tiny import shared_bridge


@pytest.fixture(scope="module")
def aggregate():
    return lens_over(shared_bridge("llama"), TEXTS, progress=False)


def test_side_by_side_shows_both_and_their_difference(trajectory):
    changed = replace(
        trajectory,
        kl_final=trajectory.kl_final + torch.randn(trajectory.kl_final.shape).double(),
        top_ids=trajectory.top_ids.roll(1, dims=2),
    )
    figure = plots.plot_side_by_side(trajectory, changed, "kl_final", names=("one", "two"))
    first, second, difference = (t for t in figure.data if isinstance(t, go.Heatmap))
    assert (first.zmin, first.zmax) == (second.zmin, second.zmax)
    assert first.colorscale == second.colorscale
    np.testing.assert_allclose(
        numbers(difference.z), numbers(second.z) - numbers(first.z), atol=1.6e-4
    )
    assert difference.coloraxis == "coloraxis"
    assert figure.layout.coloraxis.cmin == -figure.layout.coloraxis.cmax < 0
    assert [a.text for a in figure.layout.annotations] == [
        "<b>one</b>", "<b>two</b>", "<b>two − one</b>",
    ]  # fmt: skip
    places = {(t.xaxis, t.yaxis) for t in (first, second, difference)}
    assert len(places) == 3


def test_a_difference_of_ranks_is_a_factor(trajectory):
    worse = replace(trajectory, final_rank=10 * (1 + trajectory.final_rank) - 1)
    figure = plots.plot_side_by_side(trajectory, worse, "final_rank")
    difference = [t for t in figure.data if isinstance(t, go.Heatmap)][-1]
    np.testing.assert_allclose(numbers(difference.z), 1, atol=1e-4)
    bar = figure.layout.coloraxis.colorbar
    ticks = dict(zip(bar.tickvals, bar.ticktext, strict=True))
    assert ticks == {-1: "÷10", 0: "same", 1: "×10"}


def test_a_trajectory_does_not_differ_from_itself(trajectory):
    figure = plots.plot_side_by_side(trajectory, trajectory, "top1")
    difference = [t for t in figure.data if isinstance(t, go.Heatmap)][-1]
    assert (numbers(difference.z) == 0).all()
    shown = {trace.yaxis for trace in figure.data if trace.name == "guesses"}
    assert difference.yaxis not in shown


def test_side_by_side_needs_the_same_cells(trajectory, ended):
    with pytest.raises(ValueError, match="different points"):
        plots.plot_side_by_side(
            trajectory, logit_lens(shared_bridge("llama"), TEXTS, points=[0, 1, 3]), "kl_final"
        )
    with pytest.raises(ValueError, match="different tokens"):
        plots.plot_side_by_side(trajectory[:-1], trajectory[1:], "kl_final")


def test_long_texts_are_compared_one_above_the_other():
    long = deep_trajectory(points=4, columns=30)
    domains = plots.plot_side_by_side(long, long, "kl_final").layout
    assert domains.yaxis.domain[0] > domains.yaxis2.domain[1] > domains.yaxis3.domain[1]
    short = deep_trajectory(points=4, columns=5)
    domains = plots.plot_side_by_side(short, short, "kl_final").layout
    assert domains.xaxis.domain[1] < domains.xaxis3.domain[0]


def test_a_position_through_the_layers(trajectory):
    figure = plots.plot_position(trajectory, 2)
    lines = {trace.name: trace for trace in figure.data}
    expected = {
        "Rank of the final top guess": trajectory.final_rank,
        "Rank of the input token": trajectory.input_rank,
        "Rank of the next token": trajectory.next_rank,
        "Rank of ·say": trajectory.watched_rank[..., 0],
        "Rank of ·mean": trajectory.watched_rank[..., 1],
        "KL(final ‖ layer)": trajectory.kl_final,
        "KL(input ‖ layer)": trajectory.kl_input,
        "Entropy of each layer's distribution": trajectory.entropy,
    }
    assert set(lines) == set(expected)
    for name, values in expected.items():
        column = values[1:, 0, 2].double()
        shown = column.add(1).log10() if name.startswith("Rank") else column
        np.testing.assert_allclose(lines[name].y, shown, atol=5.1e-6)
    assert figure.layout.yaxis.autorange == "reversed"  # rank 0 at the top


def test_positions_count_from_the_end_and_can_lack_a_next_token(ended):
    last = plots.plot_position(ended, -1)
    assert "Rank of the next token" not in {trace.name for trace in last.data}
    width = ended.prompt(0).tokens.shape[1]
    assert last.layout.title.text == plots.plot_position(ended, width - 1).layout.title.text
    with pytest.raises(IndexError, match="out of range"):
        plots.plot_position(ended, width)


def test_aggregate_curves_are_the_means_and_their_intervals(aggregate):
    figure = plots.plot_aggregate(aggregate, ["kl_final", "log10_final_rank", "agrees_final"])
    lines = [trace for trace in figure.data if trace.fill is None]
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    for line, band, name in zip(
        lines, bands, ["kl_final", "log10_final_rank", "agrees_final"], strict=True
    ):
        np.testing.assert_allclose(line.y, aggregate.means(name)[1:], atol=5.1e-6)
        intervals = aggregate.intervals(name)[1:]
        around = [i.high for i in intervals] + [i.low for i in reversed(intervals)]
        np.testing.assert_allclose(band.y, around, atol=5.1e-6)
    units = [figure.layout[axis].title.text for axis in ("yaxis", "yaxis2", "yaxis3")]
    assert units == ["nats", "rank (0 = top guess)", "share of positions"]
    assert aggregate.plot().data[0].fill == "toself"


def test_aggregates_are_compared_by_name(aggregate):
    figure = plots.plot_aggregate({"clean": aggregate, "patched": aggregate}, ["kl_final"])
    names = [trace.name for trace in figure.data if trace.fill is None]
    assert names == ["KL(final ‖ layer), clean", "KL(final ‖ layer), patched"]
    other = lens_over(shared_bridge("llama"), TEXTS, points=[0, 3], progress=False)
    with pytest.raises(ValueError, match="different points"):
        plots.plot_aggregate({"one": aggregate, "other": other})
    for wrong in ("loss", "kl_compare"):
        with pytest.raises(ValueError, match=wrong):
            plots.plot_aggregate(aggregate, [wrong])
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.plot_aggregate(aggregate, [])
