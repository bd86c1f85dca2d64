"""Colours and themes: scales that stop where they say, text that reads on them."""

import math
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from lens_interventions import plots
from lens_interventions.drawing.colours import LINES
from lens_interventions.drawing.labels import markup, visible
from lens_interventions.drawing.theme import get_theme, template
from lens_interventions.lens.statistics import drawn
from tests.support.figures import contrast, heat, plotly_colour, texts_by_cell


def test_cells_say_the_top_guess_in_readable_ink(trajectory):
    for name in drawn():
        figure = plots.plot(trajectory, name, include_input=True, cell_width=120)
        trace, texts = heat(figure), texts_by_cell(figure)
        ids = trajectory.top_ids[:, 0, :, 0].tolist()
        low, high = trace.zmin, trace.zmax
        scale = [tuple(stop) for stop in trace.colorscale]
        assert len(texts) == len(ids) * len(ids[0])
        for (row, column), (text, ink) in texts.items():
            assert text == markup(visible(trajectory.vocab[ids[row][column]]))
            place = min(max((trace.z[row][column] - low) / (high - low), 0), 1)
            assert contrast(plotly_colour(scale, place), ink) >= 4.5


def test_colours_stop_where_the_posts_do(trajectory):
    limits = {"final_rank": 100, "input_rank": 1000}
    for name, limit in limits.items():
        trace = heat(plots.plot(trajectory, name))
        assert (trace.zmin, trace.zmax) == (0, pytest.approx(math.log10(1 + limit)))
    to_final, to_input = (heat(plots.plot(trajectory, name)) for name in ("kl_final", "kl_input"))
    assert (to_final.zmin, to_final.zmax) == (to_input.zmin, to_input.zmax) == (0, 30)
    assert to_final.colorscale == to_input.colorscale


def test_the_colour_bar_says_where_it_is_cut(trajectory):
    far = replace(trajectory, kl_final=trajectory.kl_final + 40)
    assert heat(plots.plot(far, "kl_final")).colorbar.ticktext[-1] == "≥ 30"
    near = replace(trajectory, kl_final=trajectory.kl_final.clamp(max=1))
    assert heat(plots.plot(near, "kl_final")).colorbar.ticktext[-1] == "30"


def test_the_inputs_row_does_not_stretch_an_open_scale(trajectory):
    logits = trajectory.top_logits.clone()
    logits[0] += 1000
    trace = heat(plots.plot(replace(trajectory, top_logits=logits), "top1", include_input=True))
    assert trace.zmax == pytest.approx(float(logits[1:, 0, :, 0].max()))


def test_an_unknown_theme_is_named():
    with pytest.raises(ValueError, match="unknown theme 'blue'; there are"):
        get_theme("blue")


@pytest.mark.parametrize("side_by_side", [False, True])
def test_a_theme_is_the_template_alone(trajectory, side_by_side):
    other = replace(trajectory, top_ids=trajectory.top_ids.roll(1, dims=2))
    light, dark = (
        plots.plot_side_by_side(trajectory, other, "next_rank", theme=theme)
        if side_by_side
        else plots.plot(trajectory, "next_rank", theme=theme)
        for theme in ("light", "dark")
    )
    assert light.layout.template != dark.layout.template
    assert light.update_layout(template=dark.layout.template) == dark


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_themes_text_reads_on_its_colours_of_differences(theme):
    layout = template(theme).layout
    scale = [tuple(stop) for stop in layout.coloraxis.colorscale]
    assert [place for place, _ in scale] == [0, 0.25, 0.5, 0.75, 1]
    for place in np.linspace(0, 1, 41):
        assert contrast(plotly_colour(scale, place), layout.font.color) >= 4.5


def test_a_difference_is_written_in_the_themes_text(trajectory):
    other = replace(trajectory, top_ids=trajectory.top_ids.roll(1, dims=2))
    figure = plots.plot_side_by_side(trajectory, other, "kl_final")
    difference = [t for t in figure.data if isinstance(t, go.Heatmap)][-1]
    texts = [t for t in figure.data if t.name == "guesses" and t.yaxis == difference.yaxis]
    assert texts
    assert all(trace.textfont.color is None for trace in texts)


def test_outlines_of_empty_cells_are_no_line_of_a_curve(ended):
    figure = plots.plot(replace(ended, next_rank=torch.full_like(ended.next_rank, -1)), "next_rank")
    lines = [trace.line.color for trace in figure.data if trace.name == "outline"]
    assert lines
    assert not {None, *LINES} & set(lines)
