"""From sections to one HTML file that needs nothing else."""

import html
import json
import time
from collections.abc import Callable, Sequence
from importlib import metadata, resources
from pathlib import Path
from string import Template

from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from ... import __version__
from ...drawing.export import CONFIG
from ...drawing.theme import template
from .readings import Readings
from .replication import replication
from .section import RULE, Condition, Section
from .sections import SECTIONS

POST = "https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens"
TITLE = "What each layer believes"


def build_page(
    bridge: TransformerBridge,
    path: str | Path,
    *,
    sections: Sequence[Callable[[Readings], Section]] = SECTIONS,
    results: str | Path | None = None,
    progress: bool = False,
) -> Path:
    """Measure the post's findings on a model and write them as one page that opens offline.

    **Arguments:**

    - `bridge`: any decoder that `logit_lens` reads and that has a tokenizer.
    - `path`: of the HTML file; its directory must exist.
    - `sections`: what to measure; every finding by default.
    - `results`: directory with finished runs of this model, `copying`, `loops`, `preservation` and
        `learned` or some of them; the page then ends with them, and with a small part of each
        measured again, but of `learned`, whose training takes hours.
    - `progress`: show a progress bar over the sections.

    **Returns:** `path`.

    Raises what `logit_lens` and `experiments.load_result` raise, `ValueError` for runs of another
    model, and `OSError` where the file cannot be written.
    """
    path = Path(path)
    readings = Readings(bridge)
    if results is not None:
        sections = (*sections, replication(Path(results), bridge))
    started = time.monotonic()
    measured = []
    with tqdm(sections, disable=not progress, unit="finding", leave=False) as bar:
        for make in bar:
            bar.set_description(make.__name__)
            measured.append(make(readings))
    path.write_text(render(measured, bridge, seconds=time.monotonic() - started), encoding="utf-8")
    return path


def render(sections: Sequence[Section], bridge: TransformerBridge, *, seconds: float) -> str:
    """The page of sections that were measured on `bridge`."""
    from plotly.offline import get_plotlyjs

    cfg = bridge.cfg
    settings = {
        "config": CONFIG,
        "templates": {name: template(name).to_plotly_json() for name in ("light", "dark")},
    }
    return Template(_read("page.html")).substitute(
        title=TITLE,
        post=POST,
        model=html.escape(str(cfg.model_name)),
        size=f"{cfg.n_layers} layers, {cfg.d_model} dimensions, {cfg.d_vocab:,} tokens",
        summary="\n".join(map(_summary_row, sections)),
        rule=RULE,
        sections="\n".join(map(_section, sections)),
        version=__version__,
        seconds=f"{seconds:.0f}",
        css=_read("page.css"),
        js=_read("page.js"),
        plotlyjs=get_plotlyjs(),
        settings=_script_json(json.dumps(settings)),
        **{name: metadata.version(name) for name in ("transformer_lens", "transformers", "torch")},
    )


def _summary_row(section: Section) -> str:
    return (
        f'<tr><td><a href="#{section.name}">{html.escape(section.title)}</a>'
        f'<span class="measured">{html.escape(section.brief)}</span></td>'
        f"<td>{_verdict(section)}</td></tr>"
    )


def _section(section: Section) -> str:
    parts = [
        f'<section id="{section.name}">',
        f"<h2>{_verdict(section)}{html.escape(section.title)}</h2>",
        f'<p class="claim">{html.escape(section.claim)}</p>',
        '<ul class="conditions">',
        *map(_condition, section.conditions),
        "</ul>",
        *(f"<p>{html.escape(text)}</p>" for text in section.text),
    ]
    for number, figure in enumerate(section.figures):
        name = f"{section.name}-{number}"
        parts += [
            f"<figure><figcaption>{html.escape(figure.caption)}</figcaption>",
            f'<div class="scroll"><div data-figure="{name}"></div></div></figure>',
            f'<script id="{name}" type="application/json">'
            f"{_script_json(figure.figure.to_json())}</script>",
        ]
    return "\n".join([*parts, "</section>"])


def _verdict(section: Section) -> str:
    return f'<span class="verdict {section.verdict}">{section.verdict}</span>'


def _condition(condition: Condition) -> str:
    return (
        f'<li class="{"yes" if condition.holds else "no"}">'
        f"{html.escape(_sentence(condition.says))} "
        f'<span class="measured">Measured: {html.escape(condition.measured)}.</span></li>'
    )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _script_json(text: str) -> str:
    """JSON that cannot end the script element it stands in."""
    return text.replace("<", "\\u003c")


def _read(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")
