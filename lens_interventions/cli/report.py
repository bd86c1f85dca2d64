"""`lens-interventions report`: one page about finished runs."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Directories of runs, or directories that contain runs.")
    ],
    out: Annotated[Path, typer.Option(help="The file to write, .html.")] = Path("report.html"),
    title: Annotated[
        str | None, typer.Option(help="The title of the page, by default what the runs ask.")
    ] = None,
) -> None:
    """Write one self-contained HTML page about finished experiments."""
    if out.suffix.lower() != ".html":
        raise typer.BadParameter(f"cannot write {out.name!r}: use .html")
    from ..pages.report import report as write_report

    typer.echo(f"wrote {write_report(runs, out=out, title=title)}", err=True)
