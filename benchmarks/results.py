"""Numbers beside their goals: as JSON, as a table on the terminal, as a table in the README."""

import datetime
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

COLUMNS = ("benchmark", "work", "measured", "unit", "goal", "met", "seconds")
START, END = "<!-- results -->", "<!-- end of results -->"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number and, where there is one, the goal that it is held to."""

    work: str
    measured: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def goal(self) -> str:
        """The goal as it is printed."""
        if self.at_most is not None:
            return f"≤ {number(self.at_most)}"
        return "–" if self.at_least is None else f"≥ {number(self.at_least)}"

    @property
    def met(self) -> str:
        """Whether it is met."""
        if self.at_most is None and self.at_least is None:
            return "–"
        below = self.at_most is None or self.measured <= self.at_most
        above = self.at_least is None or self.measured >= self.at_least
        return "yes" if below and above else "no"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The rows of one module and the seconds that it took, the loading of the model among them."""

    name: str
    claim: str
    seconds: float
    rows: Sequence[Row]


@dataclass(frozen=True, kw_only=True)
class Results:
    """What was measured on one machine; with `quick`, on inputs too small to tell anything."""

    machine: Mapping[str, Any]
    quick: bool
    benchmarks: Sequence[Benchmark]

    def save(self, path: Path) -> None:
        """Write them as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Results":
        """Read what `save` wrote."""
        saved = json.loads(path.read_text())
        benchmarks = [
            Benchmark(**{**item, "rows": [Row(**row) for row in item["rows"]]})
            for item in saved["benchmarks"]
        ]
        return cls(machine=saved["machine"], quick=saved["quick"], benchmarks=benchmarks)

    @property
    def caption(self) -> str:
        """The machine in one line."""
        words = ", ".join(f"{key} {value}" for key, value in self.machine.items())
        return f"quick: these are no measurements; {words}" if self.quick else words

    def cells(self) -> list[list[str]]:
        """The table, a list of `COLUMNS` for each row; a name and its seconds stand once."""
        return [
            [
                "" if index else benchmark.name,
                row.work,
                number(row.measured),
                row.unit,
                row.goal,
                "–" if self.quick else row.met,
                "" if index else f"{benchmark.seconds:.0f}",
            ]
            for benchmark in self.benchmarks
            for index, row in enumerate(benchmark.rows)
        ]

    def show(self) -> None:
        """Print the table under the machine's description."""
        table = Table(caption=self.caption)
        for column in COLUMNS:
            table.add_column(
                column, justify="right" if column in ("measured", "seconds") else "left"
            )
        for cells in self.cells():
            if cells[0]:
                table.add_section()
            table.add_row(*cells)
        Console(width=140).print(table)

    def markdown(self) -> str:
        """The same as a table of a Markdown page."""
        lines = [COLUMNS, ["---"] * len(COLUMNS), *self.cells()]
        return "\n".join([self.caption + ".", "", *(f"| {' | '.join(line)} |" for line in lines)])

    def write_into(self, page: Path) -> None:
        """Put the table between the two marks of a page, in the place of the last one.

        Raises `ValueError` where they are not there.
        """
        before, start, rest = page.read_text().partition(START)
        _, end, after = rest.partition(END)
        if not (start and end):
            raise ValueError(f"{page} has no place for the table: put {START} and {END} into it")
        page.write_text(f"{before}{START}\n\n{self.markdown()}\n\n{END}{after}")


def number(value: float) -> str:
    """Three digits, and no exponent where there are more before the point."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def machine() -> dict[str, Any]:
    """What a reader must know of the machine; its load before, as others' work spoils a number."""
    import torch  # which who merely starts the benchmarks need not wait for

    packages = ("torch", "transformers", "transformer_lens", "numpy")
    described = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "load": f"{psutil.getloadavg()[0]:.1f}",
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "on": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    if torch.cuda.is_available():
        described["gpu"] = torch.cuda.get_device_name()
    return described


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
