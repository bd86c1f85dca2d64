"""What appears over a cell."""

import pytest

from lens_interventions.drawing.labels import markup, visible
from tests.support.figures import deep_trajectory, heat


def test_hover_has_the_likeliest_tokens_and_every_statistic(trajectory):
    trace = heat(trajectory.plot("kl_final"))
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


def test_a_figure_of_200_tokens_and_31_layers_is_about_a_megabyte():
    figure = deep_trajectory(points=31, columns=200).plot("top1")
    assert len(figure.to_json()) < 1.2e6
