"""The first-order map of a run, as a table."""

import pandas as pd

from ..engine.results import Tables
from .questions import TABLES


def slopes_table(rows: Tables) -> pd.DataFrame:
    """The first-order map: slopes per predicted token, by table, scope, source and layer.

    Empty where the settings named the layers.
    """
    columns = ["table", "scope", "source", "layer", "slope", "count"]
    parts = []
    for table in TABLES:
        if f"map_{table}" in rows:
            sums = rows[f"map_{table}"].groupby(["scope", "source", "layer"], sort=False)
            added = sums[["total", "count"]].sum().reset_index()
            slope = added["total"] / added["count"].clip(lower=1)
            parts.append(added.assign(table=table, slope=slope)[columns])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
