"""Heat maps show the trajectory's own numbers, row by row."""

import numpy as np
import plotly.graph_objects as go
import pytest

from lens_interventions import plots
from lens_interventions.lens.statistics import STATISTICS, drawn
from tests.support.figures import heat, numbers, outlined_cells, position

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
