"""All benchmarks, each in a process of its own: one table, one JSON file."""

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.results import Results

NAMES = (
    "first_answer",
    "lens",
    "affine",
    "teacher_forcing",
    "effect_map",
    "slopes",
    "generation",
    "patch_training",
    "scratch_training",
    "lens_corpus",  # the longest, and the only one that other work does not disturb
)


def main(
    names: Annotated[list[str] | None, typer.Argument(help=f"of {', '.join(NAMES)}")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="small inputs: to see that all run, no measurement")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="JSON file to write")] = None,
    page: Annotated[
        Path | None, typer.Option(help="Markdown page whose marked table is replaced")
    ] = None,
) -> None:
    """Run the benchmarks one after another and print what was measured beside the goals."""
    unknown = sorted(set(names or ()) - set(NAMES))
    if unknown:
        raise typer.BadParameter(f"no benchmark is called {unknown}; there are {', '.join(NAMES)}")
    parts = []
    for name in names or NAMES:
        parts.append(_run(name, quick))
        measured = [benchmark for part in parts for benchmark in part.benchmarks]
        results = replace(parts[0], benchmarks=measured)
        if out is not None:
            results.save(out)  # each time, so that a failure of the next one loses nothing
    results.show()
    if page is not None:
        results.write_into(page)


def _run(name: str, quick: bool) -> Results:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "results.json"
        command = [sys.executable, "-m", f"benchmarks.{name}", "--out", str(out)]
        subprocess.run([*command, *(["--quick"] if quick else [])], check=True, stdout=sys.stderr)
        return Results.load(out)


if __name__ == "__main__":
    typer.run(main)
