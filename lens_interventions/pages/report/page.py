"""The page about a set of runs, in one HTML file."""

import re
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any

from ..._files import require_writable, write_text
from ...drawing.labels import counted
from ...drawing.titles import LINE
from ...experiments import Result
from ...experiments.plans import ABOUT_PATCHES
from ..rendering import plain_figure, render
from ..runs import find_runs, run_titles
from ..verdict_card import verdict_card
from .shown_tables import ShownSamples, ShownTable, flat, shown_tables

# The part of the margin above a figure that its title took.
_TITLE_SPACE = 34


def report(
    runs: str | Path | Sequence[str | Path],
    *,
    out: str | Path = "report.html",
    title: str | None = None,
) -> Path:
    """Write a page about finished runs: verdicts first, then every experiment.

    The page opens offline, because it contains the figures and plotly.js. It shows all finished
    runs, even several of one experiment, and names those that are not finished.

    **Arguments:**

    - `runs`: directories of runs, or directories that contain runs.
    - `out`: the file to write.
    - `title`: the title of the page; by default it asks whether the true next token helps, or says
        "Experiments" if none of the runs is about that.

    **Returns:** `out`.

    Raises `FileNotFoundError` if a directory does not exist; `ValueError` if no run is finished;
    `OSError` if the page cannot be written.
    """
    target = Path(out)
    found = find_runs([runs] if isinstance(runs, (str, Path)) else runs)
    target.parent.mkdir(parents=True, exist_ok=True)
    require_writable(target)
    titles = run_titles(found.results)
    shown = [
        _ShownRun(f"run-{number}", titles[path], result)
        for number, (path, result) in enumerate(found.results.items())
    ]
    about_patches = any(result.experiment in ABOUT_PATCHES for result in found.results.values())
    if title is None:
        title = "Does seeing the true next token help?" if about_patches else "Experiments"
    text = render(
        "report/page.html",
        title=title,
        about_patches=about_patches,
        models=dict.fromkeys(run.model for run in shown),
        unreadable=found.unreadable.values(),
        runs=shown,
        figures={
            run.figure_id(name): figure for run in shown for name, figure in run.figures.items()
        },
    )
    write_text(target, text)
    return target


class _ShownRun:
    """One run on the page."""

    def __init__(self, anchor: str, title: str, result: Result) -> None:
        self.anchor, self.title, self._result = anchor, title, result
        self.findings = [(finding.figure, verdict_card(finding)) for finding in result.verdicts]
        self.figures = {name: plain_figure(figure) for name, figure in result.figures().items()}
        # A title wraps on the page, and does not inside a figure.
        self.captions = {name: _take_title(figure) for name, figure in self.figures.items()}
        # Figures that answer a question come first, under that question. A finding may have no
        # figure.
        self.names = list(dict.fromkeys([*(name for name, _ in self.findings), *self.figures]))

    @property
    def model(self) -> str:
        model = self._result.header["model"]
        layers = counted(model["n_layers"], "layer")
        # Networks that a run trains itself may have other depths than the one in its header.
        if self._result.experiment == "scratch":
            networks = self._result.settings["networks"]
            depths = sorted({int(network[0]) for network in networks})
            *fewer, last = depths
            several = f"{', '.join(map(str, fewer))} and " if fewer else ""
            layers = f"networks of {several}{counted(last, 'block')}"
        return (
            f"{model['name']}: {layers} of width {model['d_model']}, vocabulary "
            f"{model['d_vocab']}, {model['dtype']} on {model['device']}"
        )

    @property
    def tables(self) -> list[ShownTable | ShownSamples]:
        return shown_tables(self._result.tables)

    @property
    def settings(self) -> list[tuple[str, str]]:
        header = self._result.header
        return list(flat({name: header[name] for name in ("settings", "model", "versions")}))

    def figure_id(self, name: str) -> str:
        return f"{self.anchor}-{name}"

    def place_of(self, name: str) -> str:
        """The id of a figure, or of the run if it has no figure of this name."""
        return self.figure_id(name) if name in self.figures else self.anchor


def _take_title(figure: dict[str, Any]) -> tuple[str, str]:
    """Remove a figure's title and the space for it; return it and its subtitle, without markup."""
    layout = figure["layout"]
    title = layout.pop("title", None) or {}
    subtitle = title.get("subtitle") or {}
    if "margin" in layout:
        space = _TITLE_SPACE
        if text := subtitle.get("text"):
            space += LINE * (1 + text.count("<br>"))
        layout["margin"]["t"] = max(layout["margin"].get("t", 80) - space, 12)
    return _unmarked(title), _unmarked(subtitle)


def _unmarked(title: dict[str, Any]) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", title.get("text") or "")).split())
