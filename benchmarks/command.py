"""The command of one benchmark: `python -m benchmarks.lens`."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import psutil
import typer

from benchmarks.results import Benchmark, Results, Row, machine


def run(measure: Callable[[bool], list[Row]]) -> None:
    """Make the module that is run a command: it measures, prints the table and writes JSON."""
    module = sys.modules["__main__"]
    claim = (module.__doc__ or "").split("\n")[0]

    def command(
        quick: Annotated[
            bool, typer.Option("--quick", help="small inputs: to see that it runs, no measurement")
        ] = False,
        out: Annotated[Path | None, typer.Option(help="JSON file to write")] = None,
    ) -> None:
        described = machine()
        rows = measure(quick)
        results = Results(
            machine=described,
            quick=quick,
            benchmarks=[
                Benchmark(
                    name=Path(str(module.__file__)).stem,
                    claim=claim,
                    seconds=time.time() - psutil.Process().create_time(),
                    rows=rows,
                )
            ],
        )
        results.show()
        if out is not None:
            results.save(out)

    command.__doc__ = claim
    typer.run(command)
