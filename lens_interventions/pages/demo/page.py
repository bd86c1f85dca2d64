"""The demo page: measured sections as one HTML file that needs nothing else."""

import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from transformer_lens.model_bridge import TransformerBridge

from ... import __version__
from ..._files import require_writable, write_text
from ...drawing.export import CONFIG
from ...drawing.theme import templates
from ...model.exclusive import exclusive
from ..rendering import plain_figure
from ..rendering import render as render_template
from .convergence import convergence
from .discarding import discarding
from .finished_runs import FinishedRun, finished_runs
from .first_block import first_block
from .fitted import fitted
from .measured_model import MeasuredModel
from .plasma import plasma
from .rarity import rarity
from .repeated_text import repeated_text
from .section import RULE, Section
from .seeing import seeing

POST = "https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens"
SECTIONS: tuple[Callable[[MeasuredModel], Section], ...] = (
    convergence,
    discarding,
    first_block,
    plasma,
    fitted,
    repeated_text,
    rarity,
    seeing,
)
TITLE = "What each layer believes"


@exclusive
def build_page(
    bridge: TransformerBridge,
    path: str | Path,
    *,
    results: str | Path | None = None,
    progress: bool = False,
) -> Path:
    """Measure the post's findings on a model and write them as one page that opens offline.

    **Arguments:**

    - `bridge`: any decoder that `logit_lens` reads and that has a tokenizer.
    - `path`: the HTML file to write; its directory must exist.
    - `results`: a directory with finished runs of the experiments on this model; the page then ends
        with their verdicts and the commands that made them.
    - `progress`: print a line to standard error for each section that is measured.

    **Returns:** `path`.

    Raises `ValueError`, `TypeError` or `NotImplementedError` for a model that the lens cannot read
    or whose context is too short for the texts; `ValueError` for runs of another model or a
    directory without a finished run; `FileNotFoundError` if `results` does not exist; and `OSError`
    if the page cannot be written.
    """
    path = Path(path)
    require_writable(path)
    model = MeasuredModel(bridge)
    # Runs are checked before anything is measured, which takes minutes.
    runs = [] if results is None else finished_runs(Path(results), bridge)
    started = time.monotonic()
    measured = []
    for number, measure in enumerate(SECTIONS, start=1):
        begun = time.monotonic()
        measured.append(measure(model))
        if progress:
            said = f"{number}/{len(SECTIONS)} {measured[-1].title}: {measured[-1].verdict}"
            print(f"{said} ({time.monotonic() - begun:.0f} s)", file=sys.stderr, flush=True)
    page = render(measured, bridge, runs=runs, seconds=time.monotonic() - started)
    write_text(path, page)
    return path


def render(
    sections: Sequence[Section],
    bridge: TransformerBridge,
    *,
    runs: Sequence[FinishedRun] = (),
    seconds: float,
) -> str:
    """The page of sections that were measured on `bridge`, and of runs of experiments on it."""
    figures = {
        f"{section.name}-{number}": plain_figure(figure.figure)
        for section in sections
        for number, figure in enumerate(section.figures)
    }
    figures |= {
        f"run-{number}": plain_figure(run.figure)
        for number, run in enumerate(runs)
        if run.figure is not None
    }
    packages = ("transformer_lens", "transformers", "torch")
    return render_template(
        "demo/page.html",
        title=TITLE,
        post=POST,
        cfg=bridge.cfg,
        sections=sections,
        rule=RULE,
        runs=runs,
        figures=figures,
        drawing={"config": CONFIG, "templates": templates()},
        seconds=round(seconds),
        versions={"lens_interventions": __version__}
        | {name: metadata.version(name) for name in packages},
    )
