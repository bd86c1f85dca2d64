"""Differences of arms that share texts and seeds, with intervals over both."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from ..design.conditions import NO_PATCH, Arm
from ..design.contrasts import Contrast, Resampling, Totals, contrast
from .arms import NONE
from .evaluation import AS_TRAINED

IN_CONTEXT = "in context"
"""Late minus early positions of a window: how much the text before helps (below 0)."""

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


def last_step(rows: pd.DataFrame, arm: str) -> int:
    """The step after which an arm of one network was done."""
    return int(rows.loc[rows["arm"] == arm, "step"].max())


def difference(
    rows: pd.DataFrame,
    resampling: Resampling,
    *,
    scope: str,
    arms: tuple[str, str],
    steps: Sequence[int] | None = None,
    condition: str = AS_TRAINED,
) -> Contrast:
    """The first arm minus the second in one network's rows, at the end of both by default.

    `condition` is the first arm's; the second is measured as it was trained. Texts and seeds are
    resampled, each on its own; with a single seed the interval knows of texts alone.
    """
    at = steps or [last_step(rows, arm) for arm in arms]
    one, counts = sums(rows, arm=arms[0], scope=scope, step=at[0], condition=condition)
    other, _ = sums(rows, arm=arms[1], scope=scope, step=at[1])
    present = counts > 0
    cells = np.stack([one.T[present], other.T[present]])
    shared = np.broadcast_to(counts[present][:, None], cells.shape[1:])
    pair = (arm_of(arms[0]), arm_of(arms[1]))
    return contrast(Totals(pair, cells, shared), *pair, resampling)


def arm_of(name: str) -> Arm:
    """An arm as comparisons name it."""
    return NO_PATCH if name == NONE else Arm(name, 0, 1.0, "learned")
