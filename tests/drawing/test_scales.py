"""Scales that stop where they say."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from lens_interventions.drawing.scales import difference_ticks, thinned
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


@pytest.mark.parametrize(("far", "end", "mark"), [(300.0, -1, "≥"), (-300.0, 0, "≤")])
@pytest.mark.parametrize("spread", [1.0, 7.3, 0.013])
def test_a_few_cells_far_out_do_not_leave_the_others_one_colour(trajectory, far, end, mark, spread):
    """The others keep most of the colours, and the bar says that values lie beyond."""
    logits = torch.randn(trajectory.top_logits.shape, generator=torch.Generator().manual_seed(1))
    logits = logits.sort(descending=True).values * spread
    middle = logits[1:, 0, :, 0]
    logits[1, 0, ::3] = far * spread
    trace = heat(replace(trajectory, top_logits=logits).plot("top1"))
    width = float(middle.max() - middle.min())
    assert trace.zmax - trace.zmin < 5 * width
    text = trace.colorbar.ticktext[end]
    assert text.startswith(f"{mark} ")
    assert trace.colorbar.tickvals[end] == pytest.approx((trace.zmin, trace.zmax)[end])
    assert float(text[2:].replace("−", "-")) == pytest.approx(trace.colorbar.tickvals[end])
    assert len(trace.colorbar.tickvals) > 2


def test_values_that_are_mostly_alike_are_not_cut(trajectory):
    logits = torch.zeros_like(trajectory.top_logits)
    logits[-1] = 7
    trace = heat(replace(trajectory, top_logits=logits).plot("top1"))
    assert (trace.zmin, trace.zmax) == (0, 7)


def test_the_inputs_row_does_not_stretch_an_open_scale(trajectory):
    logits = trajectory.top_logits.clone()
    logits[0] += 1000
    trace = heat(replace(trajectory, top_logits=logits).plot("top1", include_input=True))
    assert trace.zmax == pytest.approx(float(logits[1:, 0, :, 0].max()))


@pytest.mark.parametrize("limit", [1e-13, 3e-7, 0.4, 1.0, 7.3, 2e6])
def test_the_ticks_of_a_difference_are_different_numbers(limit):
    places, texts = difference_ticks(limit)
    assert len(set(places)) == len(set(texts)) == len(places) > 2
    assert max(places) == -min(places) <= limit * (1 + 1e-9)
    # The texts have six digits.
    assert [float(text.replace("−", "-")) for text in texts] == pytest.approx(places, rel=1e-5)


def test_names_are_thinned_to_about_so_many():
    assert thinned(1, 5) == [0]
    assert thinned(5, 5) == [0, 1, 2, 3, 4]
    for count in range(1, 60):
        kept = thinned(count, 5)
        assert kept[-1] == count - 1
        assert len(kept) <= 8
        steps = {after - before for before, after in itertools.pairwise(kept)}
        # All are as far apart as they can be, the last ones perhaps further.
        assert len(steps) <= 2


@pytest.mark.parametrize("middle", [8.1, 0.3, 10.4, 51.9])
def test_a_scale_with_one_fixed_end_says_where_the_other_is_cut(trajectory, middle):
    entropy = middle + 0.01 * torch.randn(trajectory.entropy.shape).clamp(-2, 2)
    entropy[1, 0, 0] = far = 2 * middle + 3
    trace = heat(replace(trajectory, entropy=entropy).plot("entropy"))
    assert trace.zmin == 0
    assert middle + 0.02 < trace.zmax < far
    assert trace.colorbar.tickvals[-1] == pytest.approx(trace.zmax)
    assert trace.colorbar.ticktext[-1].startswith("≥ ")
