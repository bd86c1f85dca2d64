"""Points by category, with a menu of tables."""

import pandas as pd

from lens_interventions.experiments.design.category_points import category_points
from lens_interventions.measures.verdicts import JOINT


def contrasts(*categories):
    numbers = {"estimate": 0.5, "low": 0.1, "high": 0.8, "n": 4, "p_value": 0.5, "p_holm": 0.5}
    return pd.DataFrame(
        {"category": category, "source": "true", "minus": minus, **numbers}
        for category in categories
        for minus in ("none", JOINT, "current")
    )


def test_a_view_brings_its_own_categories_and_markup_is_text():
    views = {"one": contrasts("a <b>", "a long name of a kind"), "two": contrasts("c")}
    figure = category_points(views, title="", y_title="")
    first, second = (button.args for button in figure.layout.updatemenus[0].buttons)
    assert first[0]["visible"] == [True, True, False, False] == [t.visible for t in figure.data]
    assert second[0]["visible"] == [False, False, True, True]
    assert first[1]["xaxis.ticktext"] == ["a &lt;b&gt;", "a long name<br>of a kind"]
    assert list(figure.layout.xaxis.ticktext) == first[1]["xaxis.ticktext"]
    assert second[1]["xaxis.ticktext"] == ["c"]
    assert second[1]["xaxis.range"] == [-0.5, 0.5]
    assert figure.data[0].customdata[0].startswith("a &lt;b&gt;<br>")
