"""Tables, settings and sampled texts of a result, as the report's page shows them."""

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

# How many rows of a table are shown; the file has the rest.
_SHOWN_ROWS = 140
# A main table with more rows is folded.
_OPEN_ROWS = 40
_SAMPLE_COLUMNS = frozenset({"condition", "prompt", "before", "first_round", "again"})


@dataclass(frozen=True)
class ShownTable:
    """A table as text.

    Attributes:
        name: its name, for the heading.
        columns: the name of each column, and whether it holds words instead of numbers.
        rows: the cells as text, with three digits of each number; only the first rows of a long
            table.
        n_rows: the number of rows in all.
        is_folded: whether a reader must open it.
    """

    name: str
    columns: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[str, ...], ...]
    n_rows: int
    is_folded: bool


@dataclass(frozen=True)
class PromptSamples:
    """The texts sampled from one prompt.

    Attributes:
        prompt: the prompt.
        samples: a row for each text, with `condition`, `before`, `first_round` and `again`: the
            text before the loop in which it ends, the loop's first round, and the rest.
        n_loops: how many end in a loop.
    """

    prompt: str
    samples: tuple[Mapping[Hashable, Any], ...]
    n_loops: int


@dataclass(frozen=True)
class ShownSamples:
    """Sampled texts by prompt."""

    prompts: tuple[PromptSamples, ...]


def shown_tables(tables: Mapping[str, pd.DataFrame]) -> list[ShownTable | ShownSamples]:
    """Tables by name, the main one first, and sampled texts among them."""
    return [
        _by_prompt(rows) if set(rows) >= _SAMPLE_COLUMNS else _shown(name, rows, is_main=place == 0)
        for place, (name, rows) in enumerate(tables.items())
    ]


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Nested values as pairs of a dotted name and a text."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield f"{prefix}{name}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{name}", str(value)


def _shown(name: str, rows: pd.DataFrame, *, is_main: bool) -> ShownTable:
    return ShownTable(
        name=name,
        columns=tuple(
            (str(column).replace("_", " "), not pd.api.types.is_numeric_dtype(rows[column]))
            for column in rows
        ),
        rows=tuple(
            tuple(map(_cell, row)) for row in rows.head(_SHOWN_ROWS).itertuples(index=False)
        ),
        n_rows=len(rows),
        is_folded=not is_main or len(rows) > _OPEN_ROWS,
    )


def _by_prompt(rows: pd.DataFrame) -> ShownSamples:
    return ShownSamples(
        tuple(
            PromptSamples(
                prompt=str(prompt),
                samples=tuple(group.to_dict("records")),
                n_loops=int((group["first_round"].str.len() > 0).sum()),
            )
            for prompt, group in rows.groupby("prompt", sort=False)
        )
    )


def _cell(value: object) -> str:
    if isinstance(value, float | np.floating):
        return "" if math.isnan(value) else f"{value:.3g}".replace("-", "−")
    return str(value)
