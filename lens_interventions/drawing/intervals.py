"""Intervals as error bars, from the rows of a table."""

from typing import Any

import pandas as pd


def error_bars(
    rows: pd.DataFrame,
    value: str = "estimate",
    low: str = "low",
    high: str = "high",
    **style: Any,
) -> dict[str, Any]:
    """`error_x` or `error_y` of a trace, from the columns that hold the value and its ends."""
    return {
        "type": "data",
        "symmetric": False,
        # An interval of its own kind need not hold the estimate to the last digit.
        "array": (rows[high] - rows[value]).clip(lower=0).tolist(),
        "arrayminus": (rows[value] - rows[low]).clip(lower=0).tolist(),
        **style,
    }
