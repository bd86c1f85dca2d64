"""The demo page: one file with every section, drawn in a browser on screens of every kind."""

import re
from dataclasses import replace

import plotly.graph_objects as go
import pytest

from lens_interventions.pages.demo import SECTIONS, build_page
from lens_interventions.pages.demo.page import render
from lens_interventions.pages.demo.section import Condition, Figure, Section
from tests.support.browser import browse
from tests.support.less_is_read import less_is_read
from tests.support.pages import ROOT
from tests.support.tiny import shared_bridge

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def page(default_bridge, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "index.html"
    with less_is_read():
        return build_page(default_bridge, path, results=ROOT / "results" / "smollm2-135m-instruct")


def test_the_page_is_one_file_with_every_section(page):
    text = page.read_text()
    assert text.count("<section") == 1 + len(SECTIONS) + 1  # the summary, and finished runs
    for loads in (' src="http', "<script src", '<link rel="stylesheet', "@import"):
        assert loads not in text
    assert page.stat().st_size < 6.5e6  # 4.8e6 of it plotly.js, 1.2e6 what is drawn


def test_every_finding_has_a_verdict_numbers_and_figures(page):
    text = page.read_text()
    summary = re.search(r'<section id="summary">.*?</section>', text, re.DOTALL)[0]
    words = re.findall(r'<span class="verdict (\w+)">(\w+)</span>', summary)
    assert len(words) == len(SECTIONS)
    assert all(css == word and word in ("agrees", "partly", "disagrees") for css, word in words)
    assert len(re.findall(r'<span class="measured">[^<]*\d', summary)) == len(SECTIONS)
    for body in re.findall(r"<section id=.*?</section>", text, re.DOTALL)[1:-1]:
        assert len(re.findall(r'<span class="measured">Measured: [^<]*\d', body)) >= 2
        assert "data-figure" in body


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_draws_without_console_errors(page, tmp_path, scheme):
    flags = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    dom, console = browse(page.as_uri(), tmp_path, *flags)
    # The committed figure of loops leaves the colour of its error bars to plotly, which says so.
    assert [line for line in console if "Invalid color specifier" not in line] == []
    figures = page.read_text().count('data-figure="')
    assert f'data-drawn="{figures}"' in dom
    assert dom.count('class="plot-container') == figures
    # Each heat map is an image of its cells.
    maps = page.read_text().count('"type":"heatmap"')
    assert dom.count("<image ") >= maps > 8
    paper = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}[scheme]
    assert len(re.findall(rf'class="main-svg"[^>]*background: {re.escape(paper)}', dom)) == figures


def test_errors_of_a_page_are_noticed(tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text("<!doctype html><script>Plotly.newPlot()</script>")
    _, console = browse(broken.as_uri(), tmp_path / "profile")
    assert len(console) == 1
    assert "Plotly is not defined" in console[0]


def test_a_phone_scrolls_figures_not_the_page(page, tmp_path):
    # Browsers have a smallest window, so the phone is a frame.
    phone = tmp_path / "phone.html"
    phone.write_text(
        f'<!doctype html><iframe id="phone" src="{page.as_uri()}" style="width: 360px; '
        'height: 700px"></iframe><script>window.onload = () => setTimeout(() => { const page = '
        'document.getElementById("phone").contentDocument; document.body.dataset.width = '
        "page.documentElement.scrollWidth; document.body.dataset.wide = Math.max("
        '...[...page.querySelectorAll(".scroll")].map((e) => e.scrollWidth)); }, 10000)</script>'
    )
    dom, _ = browse(phone.as_uri(), tmp_path / "profile")
    assert int(re.search(r'data-width="(\d+)"', dom)[1]) <= 360
    assert int(re.search(r'data-wide="(\d+)"', dom)[1]) > 360


def test_text_from_a_model_cannot_act_as_markup():
    wild = "</script><script>alert(1)</script>"
    figure = go.Figure(layout={"title": wild})
    made = replace(
        Section("name", "title", "claim", conditions=(), text=(), figures=()),
        title=wild,
        claim=wild,
        text=(wild,),
        brief=wild,
        conditions=(Condition(wild, True, wild),),
        figures=(Figure(wild, figure),),
    )
    assert "alert(1)</script>" not in render([made], shared_bridge("llama"), seconds=1)
