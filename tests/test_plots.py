"""Figures show the trajectory's own numbers, under labels that a reader can trust."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import plotly.colors
import plotly.graph_objects as go
import plotly.io
import pytest
import torch

from lens_interventions import plots
from lens_interventions.aggregate import lens_over
from lens_interventions.lens import logit_lens
from lens_interventions.plots.colours import LINES
from lens_interventions.plots.labels import markup, shorten, visible
from lens_interventions.plots.scales import SCALES
from lens_interventions.plots.theme import get_theme, template
from lens_interventions.trajectory import statistic_names
from tests.tiny import shared_bridge

# "people say" occurs three times, so that input tokens repeat.
TEXTS = ["people say people say:\n people say", "the fox"]
# Statistics with several values a cell, which a cell's colour cannot show.
SEVERAL = {"top_ids", "top_logits"}


@pytest.fixture(scope="module")
def trajectory():
    return logit_lens(
        shared_bridge("llama"),
        TEXTS,
        watch=[" say", " mean"],
        divergences=("kl", "kl_reverse", "js"),
        compare_with=1,
        next_token=" say",
    )


@pytest.fixture(scope="module")
def ended(trajectory):
    """The same without a token after the last one."""
    return logit_lens(shared_bridge("llama"), TEXTS)


@pytest.fixture(scope="module")
def aggregate():
    return lens_over(shared_bridge("llama"), TEXTS, progress=False)


def heat(figure):
    return next(trace for trace in figure.data if isinstance(trace, go.Heatmap))


def numbers(rows):
    return np.array([[math.nan if z is None else z for z in row] for row in rows])


def position(name, values):
    """Where a statistic stands on its colour axis, from its definition."""
    values = values.double().numpy()
    if name.endswith("_rank"):
        return np.log10(1 + np.where(values < 0, np.nan, values))
    return values


def outlined_cells(figure):
    cells = set()
    for trace in figure.data:
        if trace.name == "outline":
            corners = [(x, y) for x, y in zip(trace.x, trace.y, strict=True) if x is not None]
            cells |= {(round(y), round(x)) for x, y in corners}
    return cells


def texts_by_cell(figure):
    return {
        (row, column): (text, trace.textfont.color)
        for trace in figure.data
        if trace.name == "guesses"
        for row, column, text in zip(trace.y, trace.x, trace.text, strict=True)
    }


def test_every_statistic_has_a_figure(trajectory):
    assert set(SCALES) == set(statistic_names()) - SEVERAL | {"top1"}
    for name in SCALES:
        assert isinstance(trajectory.plot(name), go.Figure)


@pytest.mark.parametrize("name", [name for name in SCALES if name != "top1"])
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


def test_repeated_tokens_stay_columns_of_their_own(trajectory):
    axis = plots.plot(trajectory, "top1").layout.xaxis
    tokens = trajectory.tokens[0].tolist()
    assert len(set(tokens)) < len(tokens)
    assert list(axis.tickvals) == list(range(len(tokens)))
    assert list(axis.ticktext) == [markup(visible(trajectory.vocab[token])) for token in tokens]


def test_labels_tilt_and_mark_where_the_model_was_right(trajectory):
    # A model that is always right about the next token but once.
    following = trajectory.next_tokens[0].tolist()
    rank = trajectory.next_rank.clone()
    rank[-1, 0] = 0
    rank[-1, 0, 2] = 1
    figure = plots.plot(replace(trajectory, next_rank=rank), "top1")
    layout = figure.layout
    texts = [markup(visible(trajectory.vocab[token])) for token in following]
    expected = [text if i == 2 else f"(*) {text}" for i, text in enumerate(texts)]
    assert list(layout.xaxis2.ticktext) == expected
    assert (layout.xaxis.side, layout.xaxis2.side) == ("bottom", "top")
    assert layout.xaxis.tickangle == layout.xaxis2.tickangle == -45
    # Plotly draws an axis only where a trace uses it.
    assert any(trace.xaxis == "x2" for trace in figure.data)


def test_without_the_last_point_nothing_is_marked_right():
    cut = logit_lens(shared_bridge("llama"), TEXTS[0], points=[0, 1])
    labels = plots.plot(cut, "top1").layout.xaxis2.ticktext
    assert not any("(*)" in label for label in labels)


def test_outlines_are_where_the_guess_is_the_final_one(trajectory):
    figure = plots.plot(trajectory, "kl_final")
    expected = {tuple(cell) for cell in trajectory.agrees_final[:, 0].nonzero().tolist()}
    assert outlined_cells(figure) == expected


def test_cells_say_the_top_guess_in_readable_ink(trajectory):
    for name in SCALES:
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


def plotly_colour(scale, place):
    """The colour that plotly's own interpolation gives, as red, green, blue of 255."""
    colours = [plotly.colors.label_rgb(plotly.colors.hex_to_rgb(stop)) for _, stop in scale]
    (sample,) = plotly.colors.sample_colorscale(colours, [place])
    return plotly.colors.unlabel_rgb(sample)


def contrast(rgb, ink):
    """Contrast ratio of WCAG 2.2, from its definition."""

    def luminance(colour):
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
            for c in (channel / 255 for channel in colour)
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    other = [int(ink[i : i + 2], 16) for i in (1, 3, 5)]
    lighter, darker = sorted([luminance(rgb), luminance(other)], reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


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


def test_the_input_has_a_row_in_its_own_figures_only(trajectory):
    def rows(name, **options):
        return plots.plot(trajectory, name, **options).layout.yaxis.ticktext

    for name in ("kl_final", "kl_input", "input_rank"):
        assert rows(name)[0] == "input"
        assert rows(name, include_input=False)[0] == "1"
    for name in ("top1", "final_rank", "next_rank", "entropy"):
        assert rows(name)[0] == "1"
        assert rows(name, include_input=True)[0] == "input"


def test_the_inputs_row_does_not_stretch_an_open_scale(trajectory):
    logits = trajectory.top_logits.clone()
    logits[0] += 1000
    trace = heat(plots.plot(replace(trajectory, top_logits=logits), "top1", include_input=True))
    assert trace.zmax == pytest.approx(float(logits[1:, 0, :, 0].max()))


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


@pytest.mark.parametrize("columns", [1, 10, 40, 200])
def test_cells_have_text_while_it_can_be_read(columns):
    figure = plots.plot(deep_trajectory(points=4, columns=columns), "top1")
    width = figure.layout.xaxis.range[1] - figure.layout.xaxis.range[0]
    margin = figure.layout.margin
    cell = (figure.layout.width - margin.l - margin.r) / width
    texts = [trace for trace in figure.data if trace.name == "guesses"]
    if columns <= 40:
        assert all(trace.textfont.size >= 9 for trace in texts)
        assert texts
        # Letters of the font are about 0.6 of its size wide.
        longest = max(len(text) for trace in texts for text in trace.text)
        assert 0.6 * texts[0].textfont.size * longest <= cell + 1
    else:
        assert not texts
    # Labels that are tilted by 45 degrees stand apart if lines of them fit side by side.
    assert cell >= 1.15 * figure.layout.xaxis.tickfont.size * math.sqrt(2)


def test_a_figure_of_200_tokens_and_31_layers_is_about_a_megabyte():
    figure = plots.plot(deep_trajectory(points=31, columns=200), "top1")
    assert len(figure.to_json()) < 1.15e6


def deep_trajectory(*, points, columns):
    """Random statistics of so many points and columns."""
    read = logit_lens(shared_bridge("llama"), "the fox")
    generator = torch.Generator().manual_seed(0)
    labels = [f"{point}_pre" for point in range(points - 1)] + ["final_post"]
    vocab = {token: f" token{token}" for token in range(112)}

    def draw(name, value):
        shape = (points, 1, columns, *value.shape[3:])
        if value.ndim == 2:
            shape = (1, columns)
        if value.dtype == torch.bool:
            return torch.ones(shape, dtype=torch.bool)
        if value.dtype.is_floating_point:
            return 20 * torch.rand(shape, generator=generator, dtype=value.dtype)
        return torch.randint(112, shape, generator=generator)

    drawn = {name: draw(name, value) for name, value in read.tensors().items()}
    return replace(read, points=tuple(labels), vocab=vocab, **drawn)


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" plasma", "·plasma"),
        ("a b", "a·b"),
        (" ", "␣"),
        ("  ", "␣␣"),
        (" " * 8, "␣×8"),
        ("\n", "⏎"),
        ("\n\n\n\n\n", "⏎×5"),
        ("\n   x", "⏎···x"),
        ("\t\treturn", "⇥⇥return"),
        ("\r\n", "\\r⏎"),
        ("\u00a0", "⍽"),
        ("\u200b", "<U+200B>"),
        ("\x00", "<U+0000>"),
        ("\ufffd", "\ufffd"),
        ("\u0301", "◌\u0301"),
        ("", "∅"),
        ("naïve", "naïve"),
        ("日本", "日本"),
    ],
)
def test_every_token_is_visible(token, shown):
    assert visible(token) == shown


def test_long_tokens_are_cut():
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 6) == "abcde…"


def test_tokens_cannot_act_as_markup(trajectory):
    wild = "<b>&$x$"
    assert markup(wild) == "&lt;b&gt;&amp;&#36;x&#36;"
    vocab = dict.fromkeys(trajectory.vocab, wild)
    figure = plots.plot(replace(trajectory, vocab=vocab), "watched_rank", cell_width=200)
    for part in (
        *figure.layout.xaxis.ticktext,
        *figure.layout.xaxis2.ticktext,
        *(text for text, _ in texts_by_cell(figure).values()),
        figure.layout.title.text.replace("<b>", "", 1),  # the title's own
        heat(figure).hovertemplate.replace("<b>", "", 1),
        *(item for item in heat(figure).customdata[0][0] if isinstance(item, str)),
    ):
        assert "<b>" not in part
        assert "$" not in part


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


def test_a_difference_of_ranks_is_a_factor(trajectory):
    worse = replace(trajectory, final_rank=10 * (1 + trajectory.final_rank) - 1)
    figure = plots.plot_side_by_side(trajectory, worse, "final_rank")
    difference = [t for t in figure.data if isinstance(t, go.Heatmap)][-1]
    np.testing.assert_allclose(numbers(difference.z), 1, atol=1e-4)
    bar = figure.layout.coloraxis.colorbar
    ticks = dict(zip(bar.tickvals, bar.ticktext, strict=True))
    assert ticks == {-1: "÷10", 0: "same", 1: "×10"}


def test_a_trajectory_does_not_differ_from_itself(trajectory):
    figure = plots.plot_side_by_side(trajectory, trajectory, "top1")
    difference = [t for t in figure.data if isinstance(t, go.Heatmap)][-1]
    assert (numbers(difference.z) == 0).all()
    shown = {trace.yaxis for trace in figure.data if trace.name == "guesses"}
    assert difference.yaxis not in shown


def test_side_by_side_needs_the_same_cells(trajectory, ended):
    with pytest.raises(ValueError, match="different points"):
        plots.plot_side_by_side(
            trajectory, logit_lens(shared_bridge("llama"), TEXTS, points=[0, 1, 3]), "kl_final"
        )
    with pytest.raises(ValueError, match="different tokens"):
        plots.plot_side_by_side(trajectory[:-1], trajectory[1:], "kl_final")


def test_long_texts_are_compared_one_above_the_other():
    long = deep_trajectory(points=4, columns=30)
    domains = plots.plot_side_by_side(long, long, "kl_final").layout
    assert domains.yaxis.domain[0] > domains.yaxis2.domain[1] > domains.yaxis3.domain[1]
    short = deep_trajectory(points=4, columns=5)
    domains = plots.plot_side_by_side(short, short, "kl_final").layout
    assert domains.xaxis.domain[1] < domains.xaxis3.domain[0]


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
        np.testing.assert_allclose(lines[name].y, shown, atol=5.1e-5)
    assert figure.layout.yaxis.autorange == "reversed"  # rank 0 at the top


def test_positions_count_from_the_end_and_can_lack_a_next_token(ended):
    last = plots.plot_position(ended, -1)
    assert "Rank of the next token" not in {trace.name for trace in last.data}
    width = ended.prompt(0).tokens.shape[1]
    assert last.layout.title.text == plots.plot_position(ended, width - 1).layout.title.text
    with pytest.raises(IndexError, match="out of range"):
        plots.plot_position(ended, width)


def test_aggregate_curves_are_the_means_and_their_intervals(aggregate):
    figure = plots.plot_aggregate(aggregate, ["kl_final", "log10_final_rank", "agrees_final"])
    lines = [trace for trace in figure.data if trace.fill is None]
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    for line, band, name in zip(
        lines, bands, ["kl_final", "log10_final_rank", "agrees_final"], strict=True
    ):
        np.testing.assert_allclose(line.y, aggregate.means(name)[1:], atol=5.1e-5)
        intervals = aggregate.intervals(name)[1:]
        around = [i.high for i in intervals] + [i.low for i in reversed(intervals)]
        np.testing.assert_allclose(band.y, around, atol=5.1e-5)
    units = [figure.layout[axis].title.text for axis in ("yaxis", "yaxis2", "yaxis3")]
    assert units == ["nats", "rank (0 = top guess)", "share of positions"]
    assert aggregate.plot().data[0].fill == "toself"


def test_aggregates_are_compared_by_name(aggregate):
    figure = plots.plot_aggregate({"clean": aggregate, "patched": aggregate}, ["kl_final"])
    names = [trace.name for trace in figure.data if trace.fill is None]
    assert names == ["KL(final ‖ layer), clean", "KL(final ‖ layer), patched"]
    other = lens_over(shared_bridge("llama"), TEXTS, points=[0, 3], progress=False)
    with pytest.raises(ValueError, match="different points"):
        plots.plot_aggregate({"one": aggregate, "other": other})
    for wrong in ("loss", "kl_compare"):
        with pytest.raises(ValueError, match=wrong):
            plots.plot_aggregate(aggregate, [wrong])
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.plot_aggregate(aggregate, [])


def test_a_saved_page_needs_nothing_else(trajectory, tmp_path):
    path = tmp_path / "figure.html"
    plots.save(plots.plot(trajectory, "top1", theme="dark"), path)
    page = path.read_text()
    assert "<title>Top guess of each layer</title>" in page
    assert "<script src" not in page
    assert "Plotly.newPlot" in page
    assert len(page) < 6_000_000
    assert "overflow-x: auto" in page


def test_saved_json_is_the_figure(trajectory, tmp_path):
    path = tmp_path / "figure.json"
    figure = plots.plot(trajectory, "kl_final")
    plots.save(figure, path)
    assert plotly.io.from_json(path.read_text()) == figure
    assert json.loads(path.read_text())["data"]


@pytest.mark.parametrize(("suffix", "begins"), [("png", b"\x89PNG"), ("svg", b"<svg")])
def test_images(trajectory, tmp_path, suffix, begins):
    path = tmp_path / f"figure.{suffix}"
    plots.save(plots.plot_position(trajectory, 0), path)
    assert path.read_bytes().startswith(begins)


def test_images_without_a_browser_say_what_to_install(trajectory, tmp_path, monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "no-browser"))
    path = tmp_path / "figure.png"
    with pytest.raises(RuntimeError, match=r"apt install chromium.*save as \.html"):
        plots.save(plots.plot(trajectory, "top1"), path)
    assert not path.exists()


def test_images_without_kaleido_say_what_to_install(trajectory, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(RuntimeError, match=r"pip install 'lens-interventions\[figures\]'"):
        plots.save(plots.plot(trajectory, "top1"), tmp_path / "figure.svg")


def test_other_formats_are_refused(trajectory, tmp_path):
    with pytest.raises(ValueError, match=r"figure\.gif.*\.html"):
        plots.save(plots.plot(trajectory, "top1"), tmp_path / "figure.gif")


def test_plotly_is_imported_when_something_is_drawn():
    code = "import sys, lens_interventions.plots; print('plotly' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
