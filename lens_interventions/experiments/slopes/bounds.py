"""Numbers that hold for a whole grid at once, and the lowest of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ...measures.intervals import Interval
from ..design.contrasts import Resampling
from ..design.rows_of_sums import sums_table
from ..design.simultaneous import simultaneous_band
from .settings import SlopesSettings

ENDS = ("estimate", "low", "high")
MAX_T = "max-t bootstrap"


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
    """The cells with estimate, low, high and n, whose ends hold for all of them at once."""
    band = simultaneous_band(np.stack(list(totals)), counts, resampling)
    return cells.assign(estimate=band.estimates, low=band.low, high=band.high, n=band.n)


def worst(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """For each cell, the difference from the reference that does best: the ends of the largest."""
    return rows.groupby(list(by))[list(ENDS)].max()


def lowest(
    cells: pd.DataFrame, grid: pd.DataFrame, settings: SlopesSettings, factor: float = 1.0
) -> Interval:
    """The lowest of some cells of a grid of one material, times a factor.

    Every cell lies within its ends at once, so the lowest lies between the lowest of the low ends
    and the lowest of the high ends.
    """
    estimate, low, high = (factor * float(cells[end].min(skipna=False)) for end in ENDS)
    method = MAX_T if np.isfinite(low) else "none"
    n = int(grid["n"].iloc[0])
    return Interval(estimate, low, high, settings.resampling.level, method, n)
