"""`lens-interventions demo` on a tiny model: the page, and a line for each finding."""

import functools
import importlib
import re

import pytest

from lens_interventions.fitting import default_lens
from lens_interventions.pages.demo import SECTIONS
from tests.support.less_is_read import less_is_read
from tests.support.pages import ROOT
from tests.support.tiny import tiny_bridge


@pytest.fixture
def run(monkeypatch, command):
    """The command on a tiny Llama whose context holds the texts."""
    bridge = tiny_bridge("llama", max_position_embeddings=1024)
    module = importlib.import_module("lens_interventions.cli.demo")
    monkeypatch.setattr(module, "load", lambda *_: bridge)
    return functools.partial(command, "demo")


@pytest.mark.usefixtures("user_cache")
def test_it_says_what_it_measures_and_writes_the_page(run, tmp_path, monkeypatch):
    monkeypatch.setattr(default_lens, "_TEXTS", 16)
    monkeypatch.setattr(default_lens, "_LENGTH", 12)
    with less_is_read():
        status, _, err = run("--out", tmp_path / "report")
    assert status == 0, err
    # Also where standard error is no terminal.
    said = re.findall(r"^(\d)/(\d) .+: (?:agrees|partly|disagrees) \(\d+ s\)$", err, re.MULTILINE)
    n = len(SECTIONS)
    assert said == [(str(number), str(n)) for number in range(1, n + 1)]
    page = tmp_path / "report" / "index.html"
    assert err.endswith(f"wrote {page}\n")
    assert page.read_text().count("<section") == 1 + n


def test_a_model_that_is_not_there_leaves_no_directory(command, tmp_path):
    for out in (tmp_path / "report", tmp_path / "some" / "where"):
        status, _, err = command("demo", "--model", tmp_path / "none", "--out", out)
        assert status == 1, err
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_directory_for_the_page(run, tmp_path):
    (tmp_path / "a.txt").touch()
    status, _, err = run("--out", tmp_path / "a.txt")
    assert status == 1
    assert "a.txt is a file: choose a directory" in err


def test_runs_of_another_model_are_refused_at_once(run, tmp_path):
    status, _, err = run("--out", tmp_path, "--results", ROOT / "results/smollm2-135m-instruct")
    assert status == 1
    assert "is about tiny-llama" in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
