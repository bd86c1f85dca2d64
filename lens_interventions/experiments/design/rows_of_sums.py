"""Rows of sums: `total` over the `count` tokens of a text, which belongs to a `cluster`."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from jaxtyping import Bool, Float
from torch import Tensor


def sum_rows(
    named: Mapping[str, Any],
    clusters: Sequence[int | str],
    totals: Sequence[float],
    counts: Sequence[int],
) -> list[dict[str, Any]]:
    """A row for each text: the columns of `named`, then row (its number), cluster, total, count."""
    return [
        {**named, "row": row, "cluster": cluster, "total": total, "count": count}
        for row, (cluster, total, count) in enumerate(zip(clusters, totals, counts, strict=True))
    ]


def masked_sums(
    values: Float[Tensor, "text next"], counted: Bool[Tensor, "text next"]
) -> tuple[list[float], list[int]]:
    """The sum of each text's values that are `counted`, and their number."""
    return values.double().where(counted, 0.0).sum(1).tolist(), counted.sum(1).tolist()


def rows_where(rows: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows that have these values in the columns of these names.

    Raises `ValueError` if there are none.
    """
    here = rows
    for column, value in values.items():
        here = here[here[column] == value]
    if here.empty:
        named = ", ".join(f"{column} {value}" for column, value in values.items())
        raise ValueError(f"no rows of {named}")
    return here


def sums_table(rows: pd.DataFrame, keys: Sequence[str], column: str) -> pd.DataFrame:
    """Sums of `total` and `count` by `keys`, with a column of each for every value of `column`."""
    sums = rows.groupby([*keys, column], sort=True)[["total", "count"]].sum()
    return pd.DataFrame(sums.unstack())


def range_of_seeds(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Means by `keys`, from rows of sums with a `seed`.

    Columns: the keys, mean, lowest, highest. The mean is that of the seeds' means; lowest and
    highest are the least and the most of these.
    """
    by_seed = rows.groupby([*keys, "seed"], sort=False)[["total", "count"]].sum(min_count=1)
    values = by_seed["total"] / by_seed["count"]
    found = values.groupby(level=list(keys), sort=False).agg(["mean", "min", "max"])
    return found.rename(columns={"min": "lowest", "max": "highest"}).reset_index()
