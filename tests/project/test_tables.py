"""The page on tables names every column of the committed runs, and nothing else."""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.support.committed_runs import RUNS, experiment_of, read_json, table_files
from tests.support.pages import ROOT

PAGE = (ROOT / "docs/api/tables.md").read_text()
_SEQUENCE = {
    *("prompt", "register", "prompt_text", "way", "length", "evaluations", "log_likelihood"),
    *("looped", "period", "rep_2", "rep_4", "text"),
}
_SWEEP = {
    *("material", "half", "layer", "rank", "steps", "source", "minus", "estimate", "low", "high"),
    *("level", "method", "n", "p_value"),
}
NOT_STORED = {
    ("likeliest", "sequences_rows"): _SEQUENCE,
    ("likeliest", "variants_rows"): {*_SEQUENCE, "tokens"},
    ("learned", "layers"): _SWEEP,
    ("learned", "ranks"): _SWEEP,
    ("learned", "best"): _SWEEP,
    ("reader", "penalties"): {"penalised", "source", "step", "mean", "low", "high"},
    ("upbringing", "rows"): {
        *("arm", "seed", "measure", "scope", "point", "row", "cluster", "total", "count")
    },
}
"""The columns of tables that an analysis makes, and that no committed run has."""


def columns_of(file: Path) -> set[str]:
    return set(pq.read_schema(file).names)


@functools.cache
def stored() -> dict[tuple[str, str], set[str]]:
    """The columns of the committed tables, by experiment and name."""
    found: dict[tuple[str, str], set[str]] = {}
    for run in RUNS:
        for file in table_files(run):
            found.setdefault((experiment_of(run), file.stem), set()).update(columns_of(file))
    return found


def markdown_rows(text: str, header: str) -> Iterator[list[str]]:
    """The cells of the tables with this header."""
    for table in re.findall(rf"^{re.escape(header)}\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE):
        for line in table.splitlines():
            yield [cell.strip() for cell in line.split("|")[1:-1]]


def names(text: str) -> list[str]:
    """The names in `code`."""
    return re.findall(r"`(\w+)`", text)


def explained() -> tuple[set[str], dict[tuple[str, str], set[str]], set[tuple[str, str]]]:
    """The columns of all tables, those that each table explains itself, and the marked tables."""
    shared = {
        name for column, _ in markdown_rows(PAGE, "| column | meaning |") for name in names(column)
    }
    own, marked = {}, set()
    for section in PAGE.split("\n## ")[1:]:
        experiment = section.split("\n", 1)[0]
        for tables, _, columns in markdown_rows(
            section, "| table | one row is | further columns |"
        ):
            for table, mark in re.findall(r"`(\w+)`( †)?", tables):
                explanations = re.findall(r"((?:`\w+`, )*`\w+`): ", columns)
                own[experiment, table] = {name for each in explanations for name in names(each)}
                if mark:
                    marked.add((experiment, table))
    return shared, own, marked


SHARED, OWN, MARKED = explained()


@pytest.mark.parametrize("run", RUNS)
def test_the_page_names_every_column_of_a_committed_table(run: str) -> None:
    for file in table_files(run):
        assert file.suffix == ".parquet"
        own = OWN[experiment_of(run), file.stem]
        assert columns_of(file) - SHARED - own == set(), file.stem


def test_the_page_explains_nothing_that_no_table_has() -> None:
    assert {*NOT_STORED} == MARKED
    assert not {*NOT_STORED} & {*stored()}
    known = stored() | NOT_STORED
    assert {*OWN} == {*known}
    for table, own in OWN.items():
        assert own <= known[table], table
        assert known[table] <= SHARED | own, table
    for column in SHARED:
        assert sum(column in columns for columns in stored().values()) > 1, column


def keys(values: Any) -> Iterator[str]:
    if isinstance(values, dict):
        yield from values
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, dict | list):
            yield from keys(value)


def test_other_names_on_the_page_are_of_tables_settings_and_verdicts() -> None:
    known = {name for table in (*stored(), *NOT_STORED) for name in table}
    known |= {name for columns in stored().values() for name in columns}
    known |= {name for columns in NOT_STORED.values() for name in columns}
    known |= {key for run in RUNS for key in keys(read_json(run, "settings")["settings"])}
    known |= {key for run in RUNS for key in keys(read_json(run, "result")["verdicts"])}
    # References to what the library has are held by `test_docs`.
    text = re.sub(r"\[`\w+`\]\[.*?\]|```.*?```", "", PAGE, flags=re.DOTALL)
    assert {*names(text)} <= known
