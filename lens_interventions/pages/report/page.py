"""One self-contained HTML page about a set of runs."""

import json
import re
from collections.abc import Sequence
from html import escape, unescape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from ...experiments import Result
from . import parts
from .runs import find_runs

# A main table of more rows is folded.
_OPEN_ROWS = 40
# How much of the margin over a figure its title took.
_TITLE_SPACE = 34

_RULES = """<h2 id="methods">How it was measured</h2>
<p>Wherever a true next token is written into the residual stream, five controls are written at the
same place with the same strength: a random token, the next token of another position, the current
token, the layer's own guess and a random direction of the same length. Where what is written is
trained, a constant takes the place of the random direction, and every control is trained as long as
the truth. The number of a verdict about the patch is the true source <em>minus the best
control</em>, paired.</p>
<p>Layer, strength, mode and the best control are chosen on one half of the material; the numbers
are those of the other half. Intervals resample texts, prompts, passages or words and never tokens.
Significance over a grid is by sign flips and Holm's correction. No arm samples under a penalty
unless the arm is named after it.</p>
<p>A verdict follows from the interval alone. With m the smallest effect worth talking about, fixed
before the run: <strong>no effect</strong> if the whole interval lies between −m and m; else
<strong>helps</strong> or <strong>hurts</strong> if it lies on one side of zero; else
<strong>undecided</strong>. In the drawings the grey band is −m to m. Where a question is about a
correlation, "helps" means that it is positive.</p>"""


def report(
    runs: str | Path | Sequence[str | Path],
    *,
    out: str | Path = "report.html",
    title: str = "Does seeing the true next token help?",
) -> Path:
    """Write a page about finished runs: verdicts first, then every experiment.

    The page needs no network: figures, plotly.js included, are inside. It takes whatever
    experiments there are, several runs of one also, and tells which runs are not finished.

    **Arguments:**

    - `runs`: directories of runs, or directories that have some below them.
    - `out`: the file to write.
    - `title`: of the page.

    **Returns:** `out`.

    Raises `FileNotFoundError` for a directory that there is not, `ValueError` without a finished
    run.
    """
    found = find_runs([runs] if isinstance(runs, (str, Path)) else runs)
    sections = [
        _Section(f"run-{number}", path, result)
        for number, (path, result) in enumerate(found.results.items())
    ]
    figures = {
        section.figure_id(name): figure
        for section in sections
        for name, figure in section.figures.items()
    }
    unfinished = "".join(f"<p>Not finished: {escape(r)}</p>" for r in found.unfinished.values())
    page = Template((resources.files(__package__) / "page.html").read_text(encoding="utf-8"))
    text = page.substitute(
        title=escape(title),
        subtitle=escape(_models(list(found.results.values()))),
        contents="".join(
            f'<li><a href="#{anchor}">{escape(name)}</a></li>'
            for anchor, name in (
                ("summary", "Summary"),
                *((s.anchor, s.title) for s in sections),
                ("methods", "How it was measured"),
            )
        ),
        body="\n".join(
            [
                '<h2 id="summary">Summary</h2>',
                unfinished,
                *(section.summary() for section in sections),
                *(section.html() for section in sections),
                _RULES,
            ]
        ),
        plotly=_plotly(),
        # "</" would end the script.
        figures=json.dumps(figures).replace("</", "<\\/"),
    )
    target = Path(out)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    return target


class _Section:
    """One run on the page."""

    def __init__(self, anchor: str, path: Path, result: Result) -> None:
        self.anchor, self.path, self.result = anchor, path, result
        drawn = {name: json.loads(f.to_json()) for name, f in result.figures().items()}
        # A title wraps on the page, and does not inside a figure.
        self.captions = {name: _take_title(figure) for name, figure in drawn.items()}
        self.figures: dict[str, dict[str, Any]] = drawn

    @property
    def title(self) -> str:
        experiment = self.result.experiment
        name = "" if self.path.name == experiment else f" ({self.path.name})"
        return experiment.capitalize() + name

    def figure_id(self, name: str) -> str:
        return f"{self.anchor}-{name}"

    def summary(self) -> str:
        cards = "".join(
            parts.finding(f, self.figure_id(f.figure), with_method=False)
            for f in self.result.verdicts
        )
        return f'<h3>{escape(self.title)}</h3><div class="findings">{cards}</div>'

    def html(self) -> str:
        result = self.result
        asked: dict[str, list[str]] = {}
        for found in result.verdicts:
            card = parts.finding(found, "", with_method=True)
            asked.setdefault(found.figure, []).append(card)
        # Figures that answer a question come first, under it.
        ordered = [*asked, *(name for name in self.figures if name not in asked)]
        figures = "".join(
            "".join(asked.get(name, []))
            + f"<figure><figcaption>{escape(self.captions[name])}</figcaption>"
            f'<div class="plot" id="{self.figure_id(name)}"></div></figure>'
            for name in ordered
        )
        return (
            f'<section><h2 id="{self.anchor}">{escape(self.title)}</h2>'
            f'<p class="soft">{escape(_model(result))}</p>{figures}{self._tables()}'
            f"<details><summary>Settings and versions</summary>{self._settings()}</details>"
            "</section>"
        )

    def _tables(self) -> str:
        pieces = []
        for place, (name, rows) in enumerate(self.result.tables.items()):
            if set(rows) >= parts.SAMPLE_COLUMNS:
                pieces.append(f"<h3>Sample texts</h3>{parts.samples(rows)}")
            elif place == 0 and len(rows) <= _OPEN_ROWS:
                pieces.append(f"<h3>Table: {escape(name)}</h3>{parts.table(rows)}")
            else:
                label = escape(name.replace("_", " "))
                pieces.append(
                    f"<details><summary>Table: {label} ({len(rows):,} rows)</summary>"
                    f"{parts.table(rows)}</details>"
                )
        return "".join(pieces)

    def _settings(self) -> str:
        header = self.result.header
        return parts.facts({name: header[name] for name in ("settings", "model", "versions")})


def _take_title(figure: dict[str, Any]) -> str:
    """Remove a figure's title and the space for it, and return it without markup."""
    layout = figure["layout"]
    title = layout.pop("title", None) or {}
    if "margin" in layout:
        layout["margin"]["t"] = max(layout["margin"].get("t", 80) - _TITLE_SPACE, 12)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", title.get("text", ""))).split())


def _model(result: Result) -> str:
    model = result.header["model"]
    return (
        f"{model['name']}: {model['n_layers']} layers of width {model['d_model']}, vocabulary "
        f"{model['d_vocab']}, {model['dtype']} on {model['device']}"
    )


def _models(results: Sequence[Result]) -> str:
    return "; ".join(dict.fromkeys(map(_model, results)))


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()
