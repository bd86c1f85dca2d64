"""Two trajectories on one scale, and their difference."""

import re
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from lens_interventions import plots
from lens_interventions.drawing.labels import markup
from lens_interventions.lens.logit_lens import logit_lens
from tests.support.figures import TEXTS, deep_trajectory, numbers
from tests.support.tiny import shared_bridge


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
    # The hover of the difference has each one's guess beside its name.
    one, two = (each.grid("kl_final").guesses for each in (trajectory, changed))
    row, column = next((r, c) for r in range(len(one)) for c in range(4) if one[r][c] != two[r][c])
    items = difference.customdata[row][column]
    filled = re.sub(
        r"%{customdata\[(\d)\]}", lambda m: str(items[int(m[1])]), difference.hovertemplate
    )
    for name, guesses in (("one", one), ("two", two)):
        (guess,) = re.findall(rf"<b>{name}: .*? \(guess (.*?)\)</b>", filled)
        assert guess == markup(guesses[row][column])


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ({}, ("clean", "patched")),
        ({"lens": "affine lens"}, ("logit lens", "affine lens")),
        ({"norm": "pre_affine", "model": "other"}, ("a model", "other")),
    ],
)
def test_two_readings_are_named_after_what_tells_them_apart(trajectory, setting, names):
    settings = {"lens": "logit lens", "model": "a model", "norm": "final"}
    first, second = (replace(trajectory, settings=settings | more) for more in ({}, setting))
    figure = plots.plot_side_by_side(first, second)
    assert [note.text for note in figure.layout.annotations[:2]] == [f"<b>{n}</b>" for n in names]


def test_a_lens_that_is_a_function_has_its_name(llama):
    def halved(residual, layer):
        return residual / 2

    by_function = logit_lens(llama, TEXTS[0], lens=halved)
    figure = plots.plot_side_by_side(logit_lens(llama, TEXTS[0]), by_function)
    names = [note.text for note in figure.layout.annotations[:2]]
    assert names == ["<b>logit lens</b>", "<b>halved</b>"]


def test_a_difference_of_ranks_is_a_factor(trajectory):
    worse = replace(trajectory, final_rank=10 * (1 + trajectory.final_rank) - 1)
    figure = plots.plot_side_by_side(trajectory, worse, "final_rank")
    difference = [t for t in figure.data if isinstance(t, go.Heatmap)][-1]
    np.testing.assert_allclose(numbers(difference.z), 1, atol=1e-4)
    bar = figure.layout.coloraxis.colorbar
    ticks = dict(zip(bar.tickvals, bar.ticktext, strict=True))
    assert ticks == {-1: "÷10", 0: "same", 1: "×10"}


@pytest.mark.parametrize(
    ("change", "ends"),
    [
        ({"final_rank": 10**5}, ("÷1,000", "≥ ×1,000")),
        ({"kl_final": 40.0}, ("−30", "≥ 30")),
        ({"kl_final": -40.0}, ("≤ −30", "30")),
        ({"kl_final": 30.0}, ("−30", "30")),
    ],
)
def test_the_scale_of_a_difference_says_where_it_is_cut(trajectory, change, ends):
    ((name, more),) = change.items()
    # Eighths, whose differences do not round.
    found = getattr(trajectory, name)
    value = ((found * 8).round() / 8).to(found.dtype)
    sides = [replace(trajectory, **{name: each}) for each in (value, value + more)]
    figure = plots.plot_side_by_side(*sides, name)
    texts = figure.layout.coloraxis.colorbar.ticktext
    assert tuple(text.replace("+", "") for text in (texts[0], texts[-1])) == ends


def test_a_trajectory_does_not_differ_from_itself(trajectory):
    figure = plots.plot_side_by_side(trajectory, trajectory, "top1")
    difference = [t for t in figure.data if isinstance(t, go.Heatmap)][-1]
    assert (numbers(difference.z) == 0).all()
    shown = {trace.yaxis for trace in figure.data if trace.name == "guesses"}
    assert difference.yaxis not in shown


def test_it_is_said_which_statistics_refer_to_each_ones_own_output(trajectory):
    for name, own in (("kl_final", True), ("final_rank", True), ("next_rank", False)):
        figure = plots.plot_side_by_side(trajectory, trajectory, name)
        assert ("against its own output" in figure.layout.title.text) is own, name


def test_side_by_side_needs_the_same_cells(trajectory, ended):
    with pytest.raises(ValueError, match="different points"):
        plots.plot_side_by_side(
            trajectory, logit_lens(shared_bridge("llama"), TEXTS, points=[0, 1, 3]), "kl_final"
        )
    with pytest.raises(ValueError, match="different tokens"):
        plots.plot_side_by_side(trajectory[:-1], trajectory[1:], "kl_final")


@pytest.mark.parametrize(
    ("statistic", "options", "titles"),
    [("watched_rank", {"watch": 7}, "say"), ("kl_compare", {"compare_with": 2}, "KL.1 ")],
)
def test_side_by_side_needs_the_same_token_and_the_same_reference(
    trajectory, statistic, options, titles
):
    other = logit_lens(
        shared_bridge("llama"), TEXTS, next_token=" say", **{"compare_with": 1} | options
    )
    with pytest.raises(ValueError, match=f"different statistics, .*{titles}.* and "):
        plots.plot_side_by_side(trajectory, other, statistic)


def test_long_texts_are_compared_one_above_the_other():
    long = deep_trajectory(points=4, columns=30)
    domains = plots.plot_side_by_side(long, long, "kl_final").layout
    assert domains.yaxis.domain[0] > domains.yaxis2.domain[1] > domains.yaxis3.domain[1]
    short = deep_trajectory(points=4, columns=5)
    domains = plots.plot_side_by_side(short, short, "kl_final").layout
    assert domains.xaxis.domain[1] < domains.xaxis3.domain[0]


@pytest.mark.parametrize("statistic", ["next_rank", "entropy"])
def test_names_are_text_and_not_markup(trajectory, statistic):
    names = ("clean <i>", "patched & more")
    figure = plots.plot_side_by_side(trajectory, trajectory, statistic, names=names)
    headers = [note.text for note in figure.layout.annotations]
    assert [f"<b>{markup(name)}</b>" for name in names] == headers[:2]
    assert markup(names[0]) != names[0]


@pytest.mark.parametrize(
    ("statistic", "points", "names", "said"),
    [
        ("next_rank", 24, ("one", "two"), "1 + rank, two ÷ one"),
        ("next_rank", 24, ("a model of some size", "another"), "1 + rank, another ÷ a model"),
        ("next_rank", 4, ("a model of some size", "another"), "1 + rank, second ÷ first"),
        ("next_log_prob", 24, ("one", "two"), "log-prob, nats, two − one"),
        ("next_rank", 24, ("b & c", "a − <i>"), "1 + rank, a − &lt;i&gt; ÷ b &amp; c"),
        ("entropy", 24, ("model " * 9, "the same, tuned"), "nats, second − first"),
    ],
)
def test_a_bar_names_the_difference_as_long_as_there_is_room(statistic, points, names, said):
    shown = deep_trajectory(points=points, columns=9)
    figure = plots.plot_side_by_side(shown, shown, statistic, names=names)
    assert figure.layout.coloraxis.colorbar.title.text.startswith(said)
