"""The demo page: verdicts by rule, one file, drawn in a browser on screens of every kind."""

import re
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest

from lens_interventions.lens.aggregate import LensAggregate
from lens_interventions.lens.logit_lens import logit_lens
from lens_interventions.pages.demo import SECTIONS, build_page
from lens_interventions.pages.demo.convergence import convergence
from lens_interventions.pages.demo.discarding import discarding
from lens_interventions.pages.demo.page import render
from lens_interventions.pages.demo.readings import Readings
from lens_interventions.pages.demo.section import Condition, Figure, Section
from tests.support.browser import browse
from tests.support.pages import ROOT
from tests.support.tiny import shared_bridge


@pytest.fixture(scope="module")
def page(default_bridge, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "index.html"
    return build_page(default_bridge, path, results=ROOT / "results" / "smollm2-135m-instruct")


def test_the_page_is_one_file_with_every_section(page):
    text = page.read_text()
    assert text.count("<section") == 1 + len(SECTIONS) + 1  # the summary, and finished runs
    for loads in (' src="http', "<script src", '<link rel="stylesheet', "@import"):
        assert loads not in text
    assert page.stat().st_size < 6e6  # 4.8e6 of it plotly.js, 0.8e6 what is drawn


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


def section(*holds):
    conditions = tuple(Condition("something", hold, "1") for hold in holds)
    return Section("name", "title", "claim", conditions, text=(), figures=())


@pytest.mark.parametrize(
    ("holds", "verdict"),
    [
        ((True, True), "agrees"),
        ((True, False), "partly"),
        ((False, True, True), "partly"),
        ((False, False), "disagrees"),
    ],
)
def test_the_verdict_follows_from_the_conditions(holds, verdict):
    assert section(*holds).verdict == verdict


def test_text_from_a_model_cannot_act_as_markup():
    wild = "</script><script>alert(1)</script>"
    figure = go.Figure(layout={"title": wild})
    made = replace(
        section(True),
        title=wild,
        claim=wild,
        text=(wild,),
        brief=wild,
        conditions=(Condition(wild, True, wild),),
        figures=(Figure(wild, figure),),
    )
    assert "alert(1)</script>" not in render([made], shared_bridge("llama"), seconds=1)


def readings(statistics):
    """What was read, made up: means of one text, and a tiny model's passage."""
    names = tuple(statistics)
    totals = np.array([statistics[name] for name in names], dtype=float)[..., None]
    passage = logit_lens(shared_bridge("llama"), "the people say")
    points = ("0_pre", *(f"{i}_pre" for i in range(1, totals.shape[1] - 1)), "final_post")
    prose = LensAggregate(points, names, totals, np.ones((len(names), 1), dtype=int))
    read = Readings(shared_bridge("llama"))
    read.prose, read.abstract = prose, passage
    return read


@pytest.mark.parametrize(
    ("kl", "rank", "verdict"),
    [
        ([90, 9, 8, 7, 6, 5, 0], [4, 2, 2, 1.9, 1, 0.5, 0], "agrees"),
        ([90, 9, 8, 7, 6, 5, 0], [4, 2, 2, 2.1, 1, 0.5, 0], "partly"),
        ([90, 5, 6, 7, 8, 5, 0], [4, 2, 2, 1.9, 1, 0.5, 0], "partly"),
        ([90, 5, 6, 7, 8, 5, 0], [4, 2, 2, 2.1, 1, 0.5, 0], "disagrees"),
    ],
)
def test_convergence_is_judged_by_falling_divergence_and_the_middle_rank(kl, rank, verdict):
    read = readings({"kl_final": kl, "log10_final_rank": rank, "agrees_final": [0] * 6 + [1]})
    assert convergence(read).verdict == verdict


@pytest.mark.parametrize(
    ("to_final", "to_input", "shares", "holds"),
    [
        ([90, 10, 0], [0, 20, 15], [0.9, 0.01, 0.01], (True, True, True)),
        ([90, 30, 0], [0, 20, 15], [0.9, 0.01, 0.01], (False, True, True)),
        ([30, 10, 0], [0, 25, 15], [0.9, 0.01, 0.01], (True, False, True)),
        ([90, 10, 0], [0, 20, 15], [0.9, 0.20, 0.01], (True, True, False)),
    ],
)
def test_discarding_is_judged_across_the_first_block(to_final, to_input, shares, holds):
    read = readings(
        {
            "kl_final": to_final,
            "kl_input": to_input,
            "agrees_input": shares,
            "log10_input_rank": [0, 2, 3],
        }
    )
    assert tuple(condition.holds for condition in discarding(read).conditions) == holds
