"""Scales that stop where they say."""

import math
from dataclasses import replace

import pytest

from tests.support.figures import heat


def test_colours_stop_where_the_posts_do(trajectory):
    limits = {"final_rank": 100, "input_rank": 1000}
    for name, limit in limits.items():
        trace = heat(trajectory.plot(name))
        assert (trace.zmin, trace.zmax) == (0, pytest.approx(math.log10(1 + limit)))
    to_final, to_input = (heat(trajectory.plot(name)) for name in ("kl_final", "kl_input"))
    assert (to_final.zmin, to_final.zmax) == (to_input.zmin, to_input.zmax) == (0, 30)
    assert to_final.colorscale == to_input.colorscale


def test_the_colour_bar_says_where_it_is_cut(trajectory):
    far = replace(trajectory, kl_final=trajectory.kl_final + 40)
    assert heat(far.plot("kl_final")).colorbar.ticktext[-1] == "≥ 30"
    near = replace(trajectory, kl_final=trajectory.kl_final.clamp(max=1))
    assert heat(near.plot("kl_final")).colorbar.ticktext[-1] == "30"


def test_the_inputs_row_does_not_stretch_an_open_scale(trajectory):
    logits = trajectory.top_logits.clone()
    logits[0] += 1000
    trace = heat(replace(trajectory, top_logits=logits).plot("top1", include_input=True))
    assert trace.zmax == pytest.approx(float(logits[1:, 0, :, 0].max()))
