"""Rows of single texts that a finished run keeps, so that a reader recomputes its numbers."""

import pandas as pd

from ..engine.results import Tables
from .heads import with_kinds

_TEXT = ["material", "cluster", "sequence"]

# What tells rows of a table apart, besides their text.
_PLACES = {
    "slopes": ["mode", "layer", "source"],
    "patched": ["layer", "source", "strength"],
    "rescue": ["layer", "strength", "through", "condition"],
    "heads": ["kind", "part", "source"],
    "ceiling": ["layer", "write"],
}


def kept_rows(rows: Tables, heads: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Sums of slopes or losses over the `count` predictions of each text, a table for each stage.

    They are named `slopes_rows` and the like, and heads are summed over those of a kind. `heads` is
    the `head_table` of the rows.
    """
    of_kinds = with_kinds(rows["heads"], heads)
    keys = [*_TEXT, *_PLACES["heads"]]
    summed = of_kinds.groupby(keys, sort=False, as_index=False).agg(
        {"total": "sum", "count": "first"}
    )
    found = {}
    for table, places in _PLACES.items():
        whole = summed if table == "heads" else rows[table].drop_duplicates([*_TEXT, *places])
        found[f"{table}_rows"] = whole[[*_TEXT, *places, "total", "count"]].reset_index(drop=True)
    return found
