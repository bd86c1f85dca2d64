"""Differences of readers that share texts and seeds, with intervals over both."""

from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Float

from ...measures.verdicts import visible_by_width
from ..design.comparisons import Comparison, compare
from ..design.conditions import NO_PATCH, Arm
from ..design.contrasts import Contrast, Resampling, Totals, contrast
from .measurements import AS_TRAINED
from .settings import ALONE, ReaderSettings


def against_all(settings: ReaderSettings, losses: pd.DataFrame, scope: str) -> Comparison:
    """The reader with the true token minus the reader alone and every control."""
    source_of = {arm_of(source): source for source in settings.controls}
    found = compare(
        lambda reference, resampling: difference(
            losses, resampling, scope=scope, minus=source_of[reference]
        ),
        list(source_of),
        settings.resampling,
        lower_is_better=True,
    )
    visible = [visible_by_width(contrast.interval) for contrast in found.contrasts.values()]
    return replace(found, smallest_visible=max(filter(None, visible), default=None))


def difference(
    losses: pd.DataFrame,
    resampling: Resampling,
    *,
    scope: str,
    minus: str,
    condition: str = AS_TRAINED,
) -> Contrast:
    """The reader with the true token minus another, nats a token.

    `condition` is that of the former. Documents and seeds are resampled, each on its own; with a
    single seed the interval knows of documents alone.

    Raises `ValueError` if there are no rows of one of them.
    """
    one, counts = _sums(losses, "true", scope, condition)
    other, _ = _sums(losses, minus, scope, AS_TRAINED)
    present = counts > 0
    cells = np.stack([one.T[present], np.broadcast_to(other, one.shape).T[present]])
    shared = np.broadcast_to(counts[present][:, None], cells.shape[1:])
    pair = (arm_of("true"), arm_of(minus))
    return contrast(Totals(pair, cells, shared), *pair, resampling)


def arm_of(source: str) -> Arm:
    """A reader's source as comparisons name it: the reader alone has no patch."""
    return NO_PATCH if source == ALONE else Arm(source, 0, 1.0, "reader")


def _sums(
    losses: pd.DataFrame, source: str, scope: str, condition: str
) -> tuple[Float[np.ndarray, "seed cluster"], Float[np.ndarray, " cluster"]]:
    """Totals by seed and text, and the counts of each text."""
    here = losses[
        (losses["source"] == source)
        & (losses["scope"] == scope)
        & (losses["condition"] == condition)
    ]
    if here.empty:
        raise ValueError(f"no rows of {source}, {scope}, {condition}")
    table = here.groupby(["seed", "cluster"], sort=True)[["total", "count"]].sum().unstack()
    return (
        table["total"].to_numpy(dtype=np.float64),
        table["count"].to_numpy(dtype=np.float64)[0],
    )
