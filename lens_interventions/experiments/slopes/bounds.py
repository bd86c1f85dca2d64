"""Numbers that hold for a whole grid at once, and the lowest of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ...measures.intervals import Interval
from ..design.contrasts import Contrast, Resampling
from ..design.rows_of_sums import sums_table
from ..design.simultaneous import MAX_T, simultaneous_band
from .settings import SlopesSettings

ENDS = ("estimate", "low", "high")


def sums_by(rows: pd.DataFrame, keys: Sequence[str]) -> tuple[dict[Any, np.ndarray], np.ndarray]:
    """The sums of each cell over the clusters, `[cluster]`, and how many predictions they are of.

    All cells are of the same texts.
    """
    sums = sums_table(rows, keys, "cluster")
    totals = sums["total"].to_numpy(dtype=np.float64)
    counts = sums["count"].to_numpy(dtype=np.float64)[0]
    return dict(zip(sums.index, totals, strict=True)), counts


def band_table(
    cells: pd.DataFrame, totals: Sequence[np.ndarray], counts: np.ndarray, resampling: Resampling
) -> pd.DataFrame:
    """The cells with estimate, low, high, p_value and n, which hold for all of them at once."""
    band = simultaneous_band(np.stack(list(totals)), counts, resampling)
    return cells.assign(
        estimate=band.estimates, low=band.low, high=band.high, p_value=band.p_values, n=band.n
    )


def worst(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """For each cell, the difference from the reference that does best: the ends of the largest.

    It has the columns of `sided`. It is below 0 if all are, and above 0 if one is.
    """
    groups = sided(rows).groupby(list(by))
    return groups.agg(dict.fromkeys((*ENDS, "p_below"), "max") | {"p_above": "min"})


def sided(rows: pd.DataFrame) -> pd.DataFrame:
    """Cells with estimate, low, high, and the p-values `p_below` and `p_above` 0.

    Each is the smallest error at which the ends lie on that side, and 1 if the estimate does not.
    """
    return rows.assign(
        p_below=rows["p_value"].where(rows["estimate"] < 0, 1.0),
        p_above=rows["p_value"].where(rows["estimate"] > 0, 1.0),
    )


def lowest(
    cells: pd.DataFrame, grid: pd.DataFrame, settings: SlopesSettings, factor: float = 1.0
) -> Contrast:
    """The lowest of some `sided` cells of a grid of one material, times a factor.

    Every cell lies within its ends at once, so the lowest lies between the lowest of the low ends
    and the lowest of the high ends: it is below 0 if one cell is, and above 0 if all are.
    """
    estimate, low, high = (factor * float(cells[end].min(skipna=False)) for end in ENDS)
    method = MAX_T if np.isfinite(low) else "none"
    n = int(grid["n"].iloc[0])
    interval = Interval(estimate, low, high, settings.resampling.level, method, n)
    return Contrast(interval, float(min(cells["p_below"].min(), cells["p_above"].max())))
