"""Differences of arms that share texts and seeds, with intervals over both."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from ...measures.intervals import Interval
from ..design.contrasts import Resampling
from .evaluation import AS_TRAINED
from .settings import ScratchSettings

IN_CONTEXT = "in context"
"""Late minus early positions of a window: how much the text before helps (below 0)."""

METHOD = "bootstrap over texts and seeds"

_KEYS = ["blocks", "entry", "arm", "seed", "step", "condition"]


def with_in_context(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of losses, and those of `IN_CONTEXT` after them."""
    late, early = (rows[rows["scope"] == scope] for scope in ("late", "early"))
    keys = [*_KEYS, "row", "cluster"]
    both = late.merge(early, on=keys, suffixes=("", "_early"))
    both = both.assign(scope=IN_CONTEXT, total=both["total"] - both["total_early"])
    return pd.concat([rows, both[rows.columns]], ignore_index=True)


def sums(
    rows: pd.DataFrame, *, arm: str, scope: str, step: int, condition: str = AS_TRAINED
) -> tuple[Float[np.ndarray, "seed cluster"], Float[np.ndarray, " cluster"]]:
    """Totals by seed and text, and the counts of each text, of one network's rows.

    Raises `ValueError` if there are none.
    """
    here = rows[
        (rows["arm"] == arm)
        & (rows["scope"] == scope)
        & (rows["step"] == step)
        & (rows["condition"] == condition)
    ]
    if here.empty:
        raise ValueError(f"no rows of {arm}, {scope}, step {step}, {condition}")
    table = here.groupby(["seed", "cluster"], sort=True)[["total", "count"]].sum().unstack()
    return (
        table["total"].to_numpy(dtype=np.float64),
        table["count"].to_numpy(dtype=np.float64)[0],
    )


def crossed_interval(
    totals: Float[np.ndarray, "seed cluster"],
    counts: Float[np.ndarray, " cluster"],
    resampling: Resampling,
) -> Interval:
    """The mean over all predictions and seeds; texts and seeds are resampled, each on its own.

    The ends are percentiles. With a single seed they know of texts alone. Few seeds say little of
    how others would turn out.
    """
    present = counts > 0
    totals, counts = totals[:, present], counts[present]
    n_seeds, n = totals.shape
    estimate = float(totals.mean(0).sum() / counts.sum()) if n else float("nan")
    if n < 2:
        return Interval(estimate, float("nan"), float("nan"), resampling.level, "none", n)
    rng, draws = resampling.rng(), resampling.n_resamples
    of_texts = rng.multinomial(n, np.full(n, 1 / n), size=draws)
    of_seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=draws) / n_seeds
    drawn = ((of_seeds @ totals) * of_texts).sum(1) / (of_texts @ counts)
    tail = 50 * (1 - resampling.level)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Interval(estimate, float(low), float(high), resampling.level, METHOD, n)


def last_step(rows: pd.DataFrame, arm: str) -> int:
    """The step after which an arm of one network was done."""
    return int(rows.loc[rows["arm"] == arm, "step"].max())


def difference(
    rows: pd.DataFrame,
    settings: ScratchSettings,
    *,
    scope: str,
    arms: tuple[str, str],
    steps: Sequence[int] | None = None,
    condition: str = AS_TRAINED,
) -> Interval:
    """The first arm minus the second in one network's rows, at the end of both by default.

    `condition` is the first arm's; the second is measured as it was trained.
    """
    one, other = arms
    at = steps or [last_step(rows, arm) for arm in arms]
    totals, counts = sums(rows, arm=one, scope=scope, step=at[0], condition=condition)
    minus, _ = sums(rows, arm=other, scope=scope, step=at[1])
    return crossed_interval(totals - minus, counts, settings.resampling)
