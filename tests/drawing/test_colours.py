"""Ink that reads on every colour."""

from lens_interventions.drawing.labels import markup, visible
from lens_interventions.lens.statistics import drawn
from tests.support.figures import contrast, heat, plotly_colour, texts_by_cell


def test_cells_say_the_top_guess_in_readable_ink(trajectory):
    for name in drawn():
        figure = trajectory.plot(name, include_input=True, cell_width=120)
        trace, texts = heat(figure), texts_by_cell(figure)
        ids = trajectory.top_ids[:, 0, :, 0].tolist()
        low, high = trace.zmin, trace.zmax
        scale = [tuple(stop) for stop in trace.colorscale]
        assert len(texts) == len(ids) * len(ids[0])
        for (row, column), (text, ink) in texts.items():
            assert text == markup(visible(trajectory.vocab[ids[row][column]]))
            place = min(max((trace.z[row][column] - low) / (high - low), 0), 1)
            assert contrast(plotly_colour(scale, place), ink) >= 4.5
