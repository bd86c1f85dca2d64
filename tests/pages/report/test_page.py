"""The report: verdicts in words, samples with loops marked, a page that opens by itself."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lens_interventions.pages.report import report
from tests.support.browser import browse
from tests.support.made_up_runs import INTERVALS, NOTHING, save_run
from tests.support.pages import ROOT


@pytest.fixture
def page(tmp_path: Path) -> Path:
    save_run(tmp_path / "runs" / "copying", "copying", INTERVALS)
    save_run(tmp_path / "runs" / "loops", "loops", {"helps": NOTHING})
    return report(tmp_path / "runs", out=tmp_path / "pages" / "report.html")


class Visible(HTMLParser):
    """The text of a page, its tags, and what it asks of the network."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.tags, self.fetched = "", [], []
        self.open: list[str] = []
        self.feed(text)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        self.fetched += [
            value
            for name, value in attrs
            if name in ("src", "href", "data") and value and not value.startswith("#")
        ]

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text += data if "mark" in self.open else f" {data}"


def visible(page: Path) -> Visible:
    return Visible(page.read_text(encoding="utf-8"))


def test_every_outcome_is_said_with_its_number(page: Path) -> None:
    text = visible(page).text
    for said in (
        "Is it <helps>? helps : −0.30 nats [−0.42, −0.18] (95% BCa, n = 36).",
        "helps a little (estimate below 0.1 nats) : −0.050 nats [−0.080, −0.020] "
        "(95% BCa, n = 36).",
        "hurts : +0.20 nats [+0.11, +0.31] (95% BCa, n = 36).",
        "no effect larger than 0.1 nats : +0.010 nats [−0.030, +0.040] (95% percentile, n = 36).",
        "undecided: cannot tell no effect from one of 0.1 nats or more : "
        "−0.05 nats [−0.21, +0.12] (95% Bonett-Price, n = 36).",
        "+0.5 nats (no interval, n = 1).",
    ):
        # Once in the summary, once beside its figure.
        assert text.count(said) == 2, said
    assert text.count("how no effect was found") == 1
    assert text.index("Summary") < text.index("Is it <helps>?") < text.index("Table: conditions")


def test_loops_are_marked_in_the_samples(page: Path) -> None:
    source = page.read_text(encoding="utf-8")
    assert source.count("<mark> a king &amp; a queen,</mark>") == 2  # one a run
    assert source.count('<mark class="again"> a king &amp; a queen, a king &amp; a</mark>') == 2
    assert "1 of 2 end in a loop" in source
    assert " there was a goat.</div>" in source
    assert "Once &lt;upon&gt; a time" in source


def test_the_page_asks_nothing_of_the_network(page: Path) -> None:
    found = visible(page)
    assert found.fetched == []
    assert not {"link", "iframe", "img"} & set(found.tags)
    assert page.read_text(encoding="utf-8").count("plotly.js v") == 1  # included once


def test_tables_settings_and_versions_are_there(page: Path) -> None:
    text = visible(page).text
    assert "Loss by layer * p < 0.05" in text
    assert "<true>" in text
    assert "3.25" in text
    assert "and 360 more rows in its file" in text
    assert "settings.layers 3, 5" in text
    assert "settings.patch.scale norm" in text
    assert "versions.torch 9.9" in text


def test_some_experiments_are_enough(tmp_path: Path) -> None:
    save_run(tmp_path / "a", "preservation", {"helps": INTERVALS["helps"]})
    text = visible(report([tmp_path / "a"], out=tmp_path / "r.html")).text
    assert "Preservation" in text
    assert "Copying" not in text


def test_an_unfinished_run_is_named_beside_finished_ones(tmp_path: Path) -> None:
    save_run(tmp_path / "runs" / "a", "copying", {"helps": INTERVALS["helps"]})
    save_run(tmp_path / "runs" / "b", "loops", {"helps": INTERVALS["helps"]})
    (tmp_path / "runs" / "b" / "result.json").unlink()
    text = visible(report(tmp_path / "runs", out=tmp_path / "r.html")).text
    assert re.search(r"Not shown: \S+/b is not finished", text)


@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_draws_without_errors(page: Path, width: int) -> None:
    flags = ["--host-resolver-rules=MAP * ~NOTFOUND", f"--window-size={width},2000"]
    dom, console = browse(page.as_uri(), page.parent / "profile", *flags)
    assert console == []
    assert dom.count('class="plot js-plotly-plot"') == 2


def test_verdicts_without_an_interval_are_not_drawn(page: Path) -> None:
    source = page.read_text(encoding="utf-8")
    assert source.count('<svg class="strip"') == 2 * len(INTERVALS)


def test_a_finding_without_a_figure_is_shown(tmp_path: Path) -> None:
    save_run(tmp_path / "a", "copying", {"helps": INTERVALS["helps"]}, figure="")
    page = report(tmp_path, out=tmp_path / "r.html")
    assert visible(page).text.count("Is it <helps>? helps") == 2
    source = page.read_text(encoding="utf-8")
    assert 'href="#run-0">Figure and method' in source
    assert source.count("data-figure=") == 1


def test_what_a_figure_says_below_its_title_is_said_on_the_page(tmp_path: Path) -> None:
    """Otherwise nothing there would tell what a star in a cell means."""
    text = visible(report(ROOT / "results/gemma-3-270m/loops", out=tmp_path / "r.html")).text
    assert "* p < 0.05 after Holm's correction over the grid" in text
    assert "late loops of long rounds are missed" in text


def test_an_experiment_of_ones_own_may_name_its_settings_as_it_likes(tmp_path: Path) -> None:
    save_run(tmp_path / "own", "mine", settings={"networks": 3})
    text = visible(report(tmp_path / "own", out=tmp_path / "own.html")).text
    assert "3 layers of width 32" in text
    save_run(tmp_path / "small", "scratch", settings={"networks": [[2, 1], [1, 0]]})
    text = visible(report(tmp_path / "small", out=tmp_path / "small.html")).text
    assert "networks of 1 and 2 blocks of width 32" in text


@pytest.mark.parametrize("experiment", ["mine", "recall"])
def test_methods_of_patches_are_only_told_of_experiments_about_them(
    page: Path, tmp_path: Path, experiment: str
) -> None:
    save_run(tmp_path / "own", experiment, INTERVALS)
    text = visible(report(tmp_path / "own", out=tmp_path / "own.html")).text
    assert "Does seeing the true next token help?" not in text
    assert "no patch and every control" not in text
    assert "no patch and every control" in visible(page).text
