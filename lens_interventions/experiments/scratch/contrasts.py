"""Differences of arms that share texts and seeds, with intervals over both."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from ..design.contrasts import Contrast, Resampling, seed_contrast
from ..design.rows_of_sums import rows_where
from ..design.text_scopes import AS_TRAINED
from .arms import name_of
from .settings import ScratchSettings

IN_CONTEXT = "in context"
"""Late minus early positions of a window: how much the text before helps (below 0)."""

_KEYS = ["blocks", "entry", "arm", "seed", "step", "condition"]


def by_network(
    settings: ScratchSettings, rows: pd.DataFrame
) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """The columns network (in words), blocks and entry of each network, and its rows."""
    for blocks, entry in settings.networks:
        named = {"network": name_of(blocks, entry), "blocks": blocks, "entry": entry}
        yield named, rows_where(rows, blocks=blocks, entry=entry)


def with_in_context(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of losses, and those of `IN_CONTEXT` after them."""
    late, early = (rows[rows["scope"] == scope] for scope in ("late", "early"))
    keys = [*_KEYS, "row", "cluster"]
    both = late.merge(early, on=keys, suffixes=("", "_early"))
    both = both.assign(scope=IN_CONTEXT, total=both["total"] - both["total_early"])
    return pd.concat([rows, both[rows.columns]], ignore_index=True)


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
    one = rows_where(rows, arm=arms[0], scope=scope, step=at[0], condition=condition)
    other = rows_where(rows, arm=arms[1], scope=scope, step=at[1], condition=AS_TRAINED)
    return seed_contrast(one, other, resampling)
