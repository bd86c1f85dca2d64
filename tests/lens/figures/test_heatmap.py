"""Figures show the trajectory's own numbers, row by row and under the mouse."""

import numpy as np
import plotly.graph_objects as go
import pytest

from lens_interventions import plots
from lens_interventions.drawing.labels import markup, visible
from lens_interventions.lens.logit_lens import logit_lens
from lens_interventions.lens.statistics import STATISTICS, drawn
from tests.support.figures import deep_trajectory, heat, numbers, outlined_cells, position
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
    figure = plots.plot(trajectory, name, include_input=True)
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
    axis = plots.plot(trajectory, "kl_final").layout.yaxis
    assert axis.range[0] < axis.range[1]
    assert list(axis.ticktext) == ["input", "1", "2", "final"]


def test_outlines_are_where_the_guess_is_the_final_one(trajectory):
    figure = plots.plot(trajectory, "kl_final")
    expected = {tuple(cell) for cell in trajectory.agrees_final[:, 0].nonzero().tolist()}
    assert outlined_cells(figure) == expected


def test_the_input_has_a_row_in_its_own_figures_only(trajectory):
    def rows(name, **options):
        return plots.plot(trajectory, name, **options).layout.yaxis.ticktext

    for name in ("kl_final", "kl_input", "input_rank"):
        assert rows(name)[0] == "input"
        assert rows(name, include_input=False)[0] == "1"
    for name in ("top1", "final_rank", "next_rank", "entropy"):
        assert rows(name)[0] == "1"
        assert rows(name, include_input=True)[0] == "input"


def test_every_nth_layer_keeps_the_last_and_ignores_the_input():
    deep = deep_trajectory(points=12, columns=3)
    without = plots.plot(deep, "kl_final", every=3, include_input=False).layout.yaxis.ticktext
    assert list(without) == ["1", "4", "7", "10", "final"]
    assert list(plots.plot(deep, "kl_final", every=3).layout.yaxis.ticktext) == ["input", *without]


def test_many_layers_are_thinned_by_themselves():
    rows = plots.plot(deep_trajectory(points=81, columns=3), "top1").layout.yaxis.ticktext
    assert len(rows) <= 33
    assert rows[-1] == "final"


def test_mid_block_points_have_rows():
    read = logit_lens(shared_bridge("llama"), "the fox", incl_mid=True)
    rows = plots.plot(read, "kl_final").layout.yaxis.ticktext
    assert list(rows) == ["input", "0 mid", "1", "1 mid", "2", "2 mid", "final"]


def test_a_prompt_of_a_batch_is_shown_without_padding(trajectory):
    length = int(trajectory.mask[1].sum())
    figure = plots.plot(trajectory, "kl_final", batch=1)
    assert len(figure.layout.xaxis.ticktext) == length
    expected = trajectory.kl_final[:, 1, :length]
    np.testing.assert_allclose(numbers(heat(figure).z), expected, atol=5.1e-5)


def test_a_missing_value_is_an_empty_cell(ended):
    figure = plots.plot(ended, "next_rank")
    z = numbers(heat(figure).z)
    assert np.isnan(z[:, -1]).all()
    assert np.isfinite(z[:, :-1]).all()
    assert figure.layout.xaxis2.ticktext[-1] == ""
    assert "–" in heat(figure).customdata[0][-1]


def test_hover_has_the_likeliest_tokens_and_every_statistic(trajectory):
    trace = heat(plots.plot(trajectory, "kl_final"))
    point, column = 2, 3
    cell = trace.customdata[point][column]
    shown = hover_text(trace, cell)
    ids = trajectory.top_ids[point, 0, column].tolist()
    log_probs = trajectory.top_log_probs[point, 0, column].tolist()
    for token, log_prob in zip(ids, log_probs, strict=True):
        # Three significant digits.
        line = next(
            line
            for line in shown.split("<br>")
            if line.endswith(" " + markup(visible(trajectory.vocab[token])))
        )
        assert float(line.split(" ")[0]) == pytest.approx(log_prob, rel=5e-3)
    for label, name in {
        "rank of final top guess": "final_rank",
        "rank of input token": "input_rank",
        "rank of next token": "next_rank",
        "rank of top guess at 1": "compare_rank",
        "entropy": "entropy",
        "KL(final ‖ layer)": "kl_final",
        "KL(input ‖ layer)": "kl_input",
        "KL(1 ‖ layer)": "kl_compare",
        "KL(layer ‖ final)": "kl_final_reverse",
        "Jensen-Shannon divergence of final and layer": "js_final",
    }.items():
        (line,) = [line for line in shown.split("<br>") if line.startswith(f"{label}:")]
        value = float(line.removeprefix(f"{label}: ").split(",")[0])
        expected = float(trajectory.statistic(name)[point, 0, column])
        assert value == pytest.approx(expected, rel=5e-3, abs=5.1e-5), name
    assert f"rank of ·say: {int(trajectory.watched_rank[point, 0, column, 0])}," in shown
    assert f"position {int(trajectory.positions[0, column])} " in shown


def hover_text(trace, cell):
    """What plotly makes of the template for one cell."""
    text = trace.hovertemplate
    for index, item in enumerate(cell):
        text = text.replace(f"%{{customdata[{index}]}}", str(item))
    assert "customdata" not in text
    return text


def test_watched_tokens_are_chosen_by_id_or_text(trajectory):
    for token in (" mean", trajectory.watched[1]):
        figure = plots.plot(trajectory, "watched_rank", token=token, include_input=True)
        expected = position("watched_rank", trajectory.watched_rank[:, 0, :, 1])
        np.testing.assert_allclose(numbers(heat(figure).z), expected, atol=5.1e-5)
        assert "·mean" in figure.layout.title.text


@pytest.mark.parametrize(
    ("statistic", "options", "message"),
    [
        ("loss", {}, "there is no figure of 'loss'"),
        ("top_ids", {}, "there is no figure of 'top_ids'"),
        ("watched_rank", {"token": " lazy"}, "' lazy' was not watched"),
        ("kl_final", {"token": " say"}, "token= goes with watched_rank"),
        ("top1", {"batch": 2}, "batch 2 does not exist"),
        ("top1", {"every": 0}, "every must be at least 1"),
        ("top1", {"cell_width": 0}, "at least 2 pixels"),
    ],
)
def test_what_is_not_there_is_named(trajectory, statistic, options, message):
    with pytest.raises(ValueError, match=message):
        plots.plot(trajectory, statistic, **options)


def test_statistics_that_were_not_asked_for_are_named(ended):
    for name in ("watched_rank", "js_final", "kl_final_reverse"):
        with pytest.raises(ValueError, match=f"{name} was not computed"):
            plots.plot(ended, name)


def test_a_figure_of_200_tokens_and_31_layers_is_about_a_megabyte():
    figure = plots.plot(deep_trajectory(points=31, columns=200), "top1")
    assert len(figure.to_json()) < 1.15e6
