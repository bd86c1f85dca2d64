"""Points of several groups at named places."""

import pandas as pd
import pytest

from lens_interventions.drawing.grouped_points import grouped_points
from lens_interventions.drawing.table_curves import Axes

AXES = Axes("network", "estimate", "steps", "network", "nats")
ROWS = pd.DataFrame(
    {
        "network": ["one", "one", "two"],
        "steps": ["after 1", "after 2", "after 2"],
        "estimate": [-1.0, -0.5, -0.2],
        "low": [-1.2, -0.9, -0.3],
        "high": [-0.7, 0.1, 0.0],
        "hover": ["a", "b", "c"],
    }
)


def test_each_point_has_its_interval_at_its_place_beside_the_other_groups():
    figure = grouped_points({"": ROWS}, AXES, title="", subtitle="words")
    first, second = figure.data
    assert (first.name, second.name) == ("after 1", "after 2")
    assert list(figure.layout.xaxis.ticktext) == ["one", "two"]
    assert first.x[0] < 0 < second.x[0] < 0.5 < second.x[1] < 1.5
    assert second.x[1] - second.x[0] == 1
    lows = [y - e for y, e in zip(second.y, second.error_y.arrayminus, strict=True)]
    highs = [y + e for y, e in zip(second.y, second.error_y.array, strict=True)]
    assert lows == pytest.approx(ROWS["low"].tolist()[1:])
    assert highs == pytest.approx(ROWS["high"].tolist()[1:])
    assert figure.layout.title.subtitle.text == "words"


def test_a_group_looks_alike_in_all_views_and_a_view_may_be_empty():
    views = {"none": ROWS[:0], "all": ROWS, "last": ROWS[1:]}
    figure = grouped_points(views, AXES, title="")
    assert [trace.visible for trace in figure.data] == [False] * 3
    assert len(figure.layout.xaxis.ticktext) == 0
    looks = {(trace.name, trace.marker.symbol, trace.marker.color) for trace in figure.data}
    assert len(looks) == 2
