"""Rows of single sequences that a finished run keeps, so that a reader recomputes its numbers."""

import pandas as pd

from ..design.sequences import REPORT
from ..design.totals import ROW_COLUMNS
from ..engine.results import Tables
from .questions import TABLES


def kept_rows(rows: Tables) -> pd.DataFrame:
    """The rows of every question on the report half, with their table and the training's seed."""
    parts = [rows[table].assign(table=table) for table in TABLES]
    kept = pd.concat(parts, ignore_index=True)[["table", "seed", *ROW_COLUMNS]]
    return kept[kept["half"] == REPORT].reset_index(drop=True)
