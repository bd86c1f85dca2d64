"""What every page has in common: all text is escaped, and figures cannot end their script."""

import json
import re

import jinja2
import plotly.graph_objects as go
import plotly.io
import pytest

from lens_interventions.pages.rendering import plain_figure, render

WILD = "</script><script>alert(1)</script> & 'it' \"is\""


def test_a_title_cannot_act_as_markup():
    page = render("base.html", title=WILD, figures={})
    assert "alert(1)</script>" not in page
    assert "<title>&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt; &amp; " in page


def test_a_figure_is_embedded_as_it_is():
    figure = go.Figure(go.Scatter(y=[1.5, float("nan")], text=[WILD, "b"]), {"title": WILD})
    page = render("base.html", title="", figures={"one": plain_figure(figure)})
    assert "alert(1)</script>" not in page
    (embedded,) = re.findall(r'<script id="one-data" type="application/json">(.*?)</script>', page)
    assert json.loads(embedded) == json.loads(figure.to_json())
    assert plotly.io.from_json(embedded).data[0].text == (WILD, "b")


def test_a_value_that_a_template_needs_is_missed():
    with pytest.raises(jinja2.UndefinedError, match="figures"):
        render("base.html", title="")
