"""Differences of networks that share texts and seeds, with intervals over both."""

import numpy as np
import pandas as pd
from jaxtyping import Float

from ..contrasts import Contrast, Resampling, difference_contrast


def seed_contrast(rows: pd.DataFrame, minus: pd.DataFrame, resampling: Resampling) -> Contrast:
    """The mean of `rows` minus that of `minus`, a token.

    Both have columns `seed`, `cluster`, `total` and `count`, for the same seeds and texts. Texts
    and seeds are resampled, each on its own; with a single seed the interval knows of texts alone.

    Raises `ValueError` if one of them is empty, or if they differ in seeds, texts or counts.
    """
    one, counts = _sums(rows)
    other, counts_of_other = _sums(minus)
    if counts.shape != counts_of_other.shape or (counts != counts_of_other).any():
        raise ValueError("the two networks were not measured with the same seeds on the same texts")
    present = counts.sum(-1) > 0
    return difference_contrast((one - other)[present], counts[present], resampling)


def _sums(
    rows: pd.DataFrame,
) -> tuple[Float[np.ndarray, "cluster seed"], Float[np.ndarray, "cluster seed"]]:
    """Totals and counts of each text with each seed."""
    if rows.empty:
        raise ValueError("there are no rows to compare")
    table = rows.groupby(["cluster", "seed"], sort=True)[["total", "count"]].sum().unstack()
    return (
        table["total"].to_numpy(dtype=np.float64),
        table["count"].to_numpy(dtype=np.float64),
    )
