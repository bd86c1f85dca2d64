"""Tables of means over texts, each with its interval."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Real

from .intervals import mean_intervals

if TYPE_CHECKING:
    import pandas as pd

Cell = tuple[dict[str, Any], Float[np.ndarray, " text"], Float[np.ndarray, " text"]]


def interval_rows(
    places: Iterable[dict[str, Any]],
    totals: Real[np.ndarray, "cell text"],
    counts: Real[np.ndarray, "*cell text"] | None = None,
    *,
    level: float,
    seed: int,
    mean: str = "estimate",
) -> list[dict[str, Any]]:
    """A row for each cell: the columns that say which it is, then its mean, low, high and n.

    **Arguments:**

    - `places`: the columns that say which cell it is.
    - `totals`: the sum of each text in each cell.
    - `counts`: how many values these are sums of, by cell and text or by text; one by default.
    - `level`, `seed`: the confidence of the intervals, and the seed of their resamples of texts.
    - `mean`: the name of the mean's column.
    """
    intervals = mean_intervals(
        totals,
        None if counts is None else np.broadcast_to(counts, totals.shape),
        rng=np.random.default_rng(seed),
        level=level,
    )
    return [
        {**place, mean: each.estimate, "low": each.low, "high": each.high, "n": each.n}
        for place, each in zip(places, intervals, strict=True)
    ]


def interval_table(cells: Iterable[Cell], *, level: float, seed: int) -> "pd.DataFrame":
    """The rows of cells that each come with their columns, the total of each text and its count."""
    import pandas as pd

    places, totals, counts = zip(*cells, strict=True)
    return pd.DataFrame(
        interval_rows(places, np.stack(totals), np.stack(counts), level=level, seed=seed)
    )
