"""A table of means over texts, each with its interval."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from ...measures.intervals import mean_intervals

if TYPE_CHECKING:
    import pandas as pd

Cell = tuple[dict[str, Any], Float[np.ndarray, " text"], Float[np.ndarray, " text"]]


def interval_table(cells: Iterable[Cell], *, level: float, seed: int) -> "pd.DataFrame":
    """A row for each cell: the columns that say which it is, then estimate, low, high and n.

    A cell has those columns, the total of each text and its count. The interval resamples texts, at
    confidence `level`.
    """
    import pandas as pd

    places, totals, counts = zip(*cells, strict=True)
    intervals = mean_intervals(
        np.stack(totals), np.stack(counts), rng=np.random.default_rng(seed), level=level
    )
    return pd.DataFrame(
        [{**place, **interval.columns()} for place, interval in zip(places, intervals, strict=True)]
    )
