"""One position through the layers."""

import numpy as np
import pytest

from lens_interventions import plots


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


def test_no_two_lines_of_all_panels_look_alike(trajectory):
    lines = [trace for trace in plots.plot_position(trajectory, 2).data if trace.mode != "text"]
    assert len(lines) > 6
    assert len({(trace.line.color, trace.line.dash) for trace in lines}) == len(lines)
    assert len({trace.line.color for trace in lines}) == 6
