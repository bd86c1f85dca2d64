"""Curves as data: what a figure holds of them, in panels and in views that take turns."""

import numpy as np
import pandas as pd
import pytest

from lens_interventions.drawing.colours import LINES
from lens_interventions.drawing.curves import Curve, draw_curves, draw_views
from lens_interventions.drawing.table_curves import Axes, curves
from tests.support.figures import contrast

NAMES = ["input", "1", "final"]


def curve(**fields):
    given = {
        "label": "some",
        "unit": "nats",
        "x": NAMES,
        "values": np.array([1.0, 2.5, 0.0]),
        **fields,
    }
    return Curve(**given)


def drawn(*some, **options):
    return draw_curves(some, **{"x_title": "point", "title": "T", **options})


def test_small_values_keep_their_digits():
    (line,) = drawn(curve(values=np.array([1.23456e-9, 2e-9, 0.0]))).data
    assert list(line.y) == [1.23456e-9, 2e-9, 0.0]


def test_a_band_leaves_out_points_without_an_interval():
    low, high = np.array([0.5, np.nan, -1.0]), np.array([1.5, 3.0, 1.0])
    band, line = drawn(curve(low=low, high=high)).data
    assert list(band.x) == ["input", "final", "final", "input"]
    assert list(band.y) == [1.5, 1.0, -1.0, 0.5]
    assert (band.fill, band.hoverinfo, band.legendgroup) == ("toself", "skip", line.legendgroup)
    (only,) = drawn(curve(low=low, high=high, banded=False)).data
    assert only.text == line.text


def test_the_text_at_a_point_tells_where_how_much_and_how_sure():
    low, high = np.array([0.5, np.nan, -1e-15]), np.array([1.5, 3.0, 1234.5])
    figure = drawn(curve(label="<b>", low=low, high=high, notes=["a", "b", "$c$"]), x_name="layer")
    assert list(figure.data[1].text) == [
        "&lt;b&gt;<br>layer: input<br>nats: 1 [0.5, 1.5]<br>a",
        "&lt;b&gt;<br>layer: 1<br>nats: 2.5<br>b",
        "&lt;b&gt;<br>layer: final<br>nats: 0 [0, 1,234]<br>&#36;c&#36;",
    ]
    assert figure.layout.xaxis.title.text == "point"


def test_ranks_stand_on_a_logarithmic_axis_and_are_told_as_they_are():
    figure = drawn(curve(unit="rank", values=np.array([0.0, 99.0, np.nan])))
    assert list(figure.data[0].y) == [0, 2, None]
    assert [text.split("<br>")[-1] for text in figure.data[0].text] == [
        "rank (0 = top guess): 0",
        "rank (0 = top guess): 99",
        "rank (0 = top guess): –",
    ]
    axis = figure.layout.yaxis
    assert axis.autorange == "reversed"
    ticks = dict(zip(axis.ticktext, axis.tickvals, strict=True))
    assert ticks["100"] == pytest.approx(np.log10(101))


def test_each_unit_has_a_panel():
    figure = drawn(curve(), curve(unit="share"), curve(label="other"), curve(unit="rank"))
    assert [trace.yaxis for trace in figure.data] == ["y", "y2", "y", "y3"]
    titles = [figure.layout[name].title.text for name in ("yaxis", "yaxis2", "yaxis3")]
    assert titles == ["nats", "share of positions", "rank (0 = top guess)"]
    with pytest.raises(ValueError, match="nothing to draw"):
        drawn()


def test_a_name_in_two_panels_is_one_entry_of_the_legend():
    figure = drawn(curve(), curve(unit="share"), curve(label="other"))
    assert [trace.showlegend for trace in figure.data] == [None, False, None]
    first, second, _ = figure.data
    assert first.legendgroup == second.legendgroup  # which the entry hides and shows
    once = drawn(curve(), curve(label="other"))
    assert figure.layout.margin.b == once.layout.margin.b


def test_of_many_names_some_are_shown_and_the_last_always():
    names = [str(i) for i in range(40)] + ["final"]
    figure = drawn(curve(x=names, values=np.arange(41.0)))
    assert figure.layout.xaxis.type == "category"
    assert figure.layout.xaxis.tickvals[0] == "0"
    assert figure.layout.xaxis.tickvals[-1] == "final"
    assert len(figure.layout.xaxis.tickvals) <= 12
    assert drawn(curve(x=[1, 2, 3])).layout.xaxis.type is None


def test_faint_and_long_curves_have_no_markers():
    assert drawn(curve()).data[0].mode == "lines+markers"
    assert drawn(curve(faint=True)).data[0].mode == "lines"
    assert drawn(curve(x=list(range(99)), values=np.zeros(99))).data[0].mode == "lines"


def test_views_take_turns():
    views = {"first": [curve(), curve(label="two")], "second": [curve()]}
    figure = draw_views(views, x_title="x", title="T", y_layout={"range": [0, 1]})
    assert [trace.visible for trace in figure.data] == [True, True, False]
    first, second = figure.layout.updatemenus[0].buttons
    assert (first.label, second.label) == ("first", "second")
    assert first.args[0]["visible"] == [True, True, False]
    assert second.args[0]["visible"] == [False, False, True]
    assert tuple(figure.layout.yaxis.range) == (0, 1)
    assert not draw_views({"": [curve()]}, x_title="x", title="T").layout.updatemenus
    half_empty = draw_views({"none": [], "second": [curve()]}, x_title="x", title="T")
    assert [trace.visible for trace in half_empty.data] == [False]
    named = draw_views({"<i>a": [curve()], "b": [curve()]}, x_title="x", title="T")
    assert named.layout.updatemenus[0].buttons[0].label == "&lt;i&gt;a"


@pytest.mark.parametrize(
    ("places", "step"), [([1, 2, 3], 1), ([0.5, 1, 2], None), (range(0, 60, 20), None)]
)
def test_no_half_layers_are_named(places, step):
    some = [curve(x=list(places))]
    assert draw_views({"": some}, x_title="layer", title="T").layout.xaxis.dtick == step


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_menu_of_views_reads_in_every_theme(theme):
    views = {"first": [curve()], "second": [curve()]}
    (menu,) = draw_views(views, x_title="x", title="T", theme=theme).layout.updatemenus
    for background in (menu.bgcolor, "#f4faff"):  # the second is plotly's own for the active entry
        assert contrast(bytes.fromhex(background[1:]), menu.font.color) >= 4.5


ROWS = pd.DataFrame(
    {
        "point": ["a", "b"] * 6,
        "value": np.arange(12) / 10,
        "who": [f"group {i // 2}" for i in range(12)],
        "low": np.arange(12) / 10 - 0.05,
        "high": np.arange(12) / 10 + 0.05,
    }
)
AXES = Axes("point", "value", "who", "", "some unit")


def test_a_table_gives_a_curve_for_each_group():
    figure = curves({"": ROWS[:4]}, AXES)
    lines = [trace for trace in figure.data if trace.fill is None]
    assert [line.name for line in lines] == ["group 0", "group 1"]
    assert list(lines[1].y) == [0.2, 0.3]
    assert lines[1].text[0] == "group 1<br>a<br>some unit: 0.2 [0.15, 0.25]"
    assert figure.layout.xaxis.type == "category"


def test_of_many_groups_two_have_bands_and_all_tell_their_intervals():
    figure = curves({"": ROWS}, AXES)
    lines = [trace for trace in figure.data if trace.fill is None]
    assert len(lines) == 6
    assert len(figure.data) == 8
    assert lines[-1].text[-1].endswith("1.1 [1.05, 1.15]")


def test_a_group_has_one_colour_in_all_views():
    figure = curves({"one": ROWS[2:], "two": ROWS[:4].drop(columns=["low", "high"])}, AXES)
    colours = {}
    for trace in figure.data:
        if trace.fill is None:
            colours.setdefault(trace.name, set()).add(trace.line.color)
    assert colours["group 1"] == {LINES[0]}
    assert all(len(found) == 1 for found in colours.values())


def test_each_view_may_have_a_title_of_its_axis():
    table = pd.DataFrame({"x": [0, 1], "y": [0.2, 0.4], "name": "a"})
    axes = Axes("x", "y", "name", "x", {"first": "nats", "second": "a share"})
    figure = curves({"first": table, "second": table}, axes)
    titles = [b.args[1]["yaxis.title.text"] for b in figure.layout.updatemenus[0].buttons]
    assert titles == ["nats", "a share"]
    assert figure.layout.yaxis.title.text == "nats"
    assert "a share: 0.4" in figure.data[1].text[1]
