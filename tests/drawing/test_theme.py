"""Light and dark, by the template alone."""

from dataclasses import replace

import numpy as np
import pytest

from lens_interventions import plots
from lens_interventions.drawing.theme import get_theme, template
from tests.support.figures import contrast, plotly_colour


def test_an_unknown_theme_is_named():
    with pytest.raises(ValueError, match="unknown theme 'blue'; there are"):
        get_theme("blue")


@pytest.mark.parametrize("side_by_side", [False, True])
def test_a_theme_is_the_template_alone(trajectory, side_by_side):
    other = replace(trajectory, top_ids=trajectory.top_ids.roll(1, dims=2))
    light, dark = (
        plots.plot_side_by_side(trajectory, other, "next_rank", theme=theme)
        if side_by_side
        else trajectory.plot("next_rank", theme=theme)
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
