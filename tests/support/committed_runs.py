"""The runs in `results/`, as their files are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.support.pages import ROOT

RESULTS = ROOT / "results"
RUNS = sorted(
    str(file.parent.relative_to(RESULTS))
    for file in RESULTS.rglob("settings.json")
    if (file.parent / "tables").is_dir()
)


def read_json(run: str, name: str) -> dict[str, Any]:
    return json.loads((RESULTS / run / f"{name}.json").read_text())


def experiment_of(run: str) -> str:
    return read_json(run, "settings")["experiment"]


def table_files(run: str) -> list[Path]:
    return sorted((RESULTS / run / "tables").iterdir())


def read(run: str, table: str) -> pd.DataFrame:
    return pd.read_parquet(RESULTS / run / "tables" / f"{table}.parquet")


def runs_with(experiment: str, *tables: str) -> list[str]:
    return [
        run
        for run in RUNS
        if experiment_of(run) == experiment
        and {*tables} <= {file.stem for file in table_files(run)}
    ]


def where(rows: pd.DataFrame, **values: Any) -> pd.DataFrame:
    for column, value in values.items():
        rows = rows[rows[column] == value]
    assert len(rows)
    return rows


def tagged(rows: pd.DataFrame, *tags: str) -> pd.DataFrame:
    categories = rows["category"].unique()
    return rows[rows["category"].isin([each for each in categories if {*tags} <= {*each.split()}])]


def means(rows: pd.DataFrame, *columns: str) -> pd.Series:
    sums = rows.groupby([*columns])[["total", "count"]].sum()
    return sums["total"] / sums["count"]


def of_rows(found: pd.Series, rows: pd.DataFrame, *columns: str) -> np.ndarray:
    """What was found for the values that rows have in these columns."""
    return found.loc[[*rows[[*columns]].itertuples(index=False, name=None)]].to_numpy()


def verdicts(run: str) -> list[dict[str, Any]]:
    return [finding["verdict"] for finding in read_json(run, "result")["verdicts"]]
