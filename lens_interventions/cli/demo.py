"""`lens-interventions demo`: the post's findings, measured on a model, as one page."""

from pathlib import Path
from typing import Annotated

import typer

from .checks import require_output
from .options import Device, Dtype, Model, Revision, load


def demo(
    out: Annotated[Path, typer.Option(help="The directory for index.html.")] = Path("report"),
    model: Model = None,
    device: Device = None,
    dtype: Dtype = "float32",
    revision: Revision = None,
    results: Annotated[
        Path | None,
        typer.Option(
            help="A directory with finished experiments on this model; their verdicts are shown."
        ),
    ] = None,
) -> None:
    """Measure the logit lens post's findings on a model, and write a page that opens offline."""
    if results is not None and not results.is_dir():
        raise FileNotFoundError(f"there is no directory {results}")
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file: choose a directory")
    made = [each for each in (out, *out.parents) if not each.exists()]
    out.mkdir(parents=True, exist_ok=True)
    try:
        require_output(out / "index.html", [".html"])
        bridge = load(model, device, dtype, revision)

        from ..pages.demo import build_page

        # The demo takes minutes, so it prints lines for a log as well as for a terminal.
        path = build_page(bridge, out / "index.html", results=results, progress=True)
    finally:
        for directory in made:
            if any(directory.iterdir()):
                break
            directory.rmdir()
    typer.echo(f"wrote {path}", err=True)
