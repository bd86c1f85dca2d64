"""Figures as files."""

import json
import sys
from concurrent.futures import ProcessPoolExecutor

import pandas as pd
import plotly.graph_objects as go
import plotly.io
import pytest

from lens_interventions import plots
from lens_interventions.drawing.table_curves import Axes, curves
from tests.support.processes import PROCESSES, modules_after


def test_a_saved_page_needs_nothing_else(trajectory, tmp_path):
    path = tmp_path / "figure.html"
    plots.save(trajectory.plot("top1", theme="dark"), path)
    page = path.read_text()
    assert "<title>Top guess of each layer</title>" in page
    assert "<script src" not in page
    assert "Plotly.newPlot" in page
    assert len(page) < 6_000_000
    assert "overflow-x: auto" in page


def test_saved_json_is_the_figure(trajectory, tmp_path):
    path = tmp_path / "figure.json"
    figure = trajectory.plot("kl_final")
    plots.save(figure, path)
    assert plotly.io.from_json(path.read_text()) == figure
    assert json.loads(path.read_text())["data"]


@pytest.mark.parametrize(
    ("suffix", "begins"), [("png", b"\x89PNG"), ("svg", b"<svg"), ("pdf", b"%PDF")]
)
def test_images(trajectory, tmp_path, suffix, begins):
    path = tmp_path / f"figure.{suffix}"
    plots.save(plots.plot_position(trajectory, 0), path)
    assert path.read_bytes().startswith(begins)


def test_an_image_names_its_view_and_offers_no_other(tmp_path):
    rows = pd.DataFrame({"step": [0, 1], "loss": [2.0, 1.0], "arm": ["true", "true"]})
    figure = curves({"first view": rows, "second": rows}, Axes("step", "loss", "arm", "s", "l"))
    plots.save(figure, tmp_path / "figure.svg")
    picture = (tmp_path / "figure.svg").read_text()
    assert "first view" in picture
    assert "updatemenu" not in picture
    assert [b.label for b in figure.layout.updatemenus[0].buttons] == ["first view", "second"]


def test_an_image_leaves_menus_of_other_figures_alone(tmp_path):
    button = {"label": "Play", "method": "animate", "args": [None]}
    figure = go.Figure(layout={"updatemenus": [{"type": "buttons", "buttons": [button]}] * 2})
    plots.save(figure, tmp_path / "figure.svg")
    assert "updatemenu" in (tmp_path / "figure.svg").read_text()


def test_images_without_a_browser_say_what_to_install(trajectory, tmp_path, monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "no-browser"))
    path = tmp_path / "figure.png"
    with pytest.raises(RuntimeError, match=r"apt install chromium.*save as \.html"):
        plots.save(trajectory.plot("top1"), path)
    assert not path.exists()


def test_images_without_kaleido_say_what_to_install(trajectory, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(RuntimeError, match=r'pip install "\.\[figures\]"'):
        plots.save(trajectory.plot("top1"), tmp_path / "figure.svg")


def test_other_formats_are_refused(trajectory, tmp_path):
    with pytest.raises(ValueError, match=r"figure\.gif.*\.html"):
        plots.save(trajectory.plot("top1"), tmp_path / "figure.gif")


def test_plotly_is_imported_when_something_is_drawn():
    with ProcessPoolExecutor(1, mp_context=PROCESSES) as executor:
        imported = executor.submit(modules_after, "lens_interventions.plots").result()
    assert "lens_interventions.plots" in imported
    assert "plotly" not in imported
