"""Differences of trainings that share texts and seeds, with intervals over both."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from ..comparisons import Comparison, compare, with_visible_by_width
from ..conditions import NO_PATCH, Arm
from ..contrasts import Contrast, Resampling, contrast
from ..text_scopes import AS_TRAINED
from ..totals import Totals


def against_all(
    losses: pd.DataFrame,
    references: Sequence[str],
    resampling: Resampling,
    *,
    scope: str,
    alone: str,
) -> Comparison:
    """The training with the true token minus each of the others, and minus the best of them.

    Of the `references` the one named `alone` stands for no patch.
    """
    source_of = {NO_PATCH if name == alone else _arm(name): name for name in references}
    found = compare(
        lambda references, resampling: [
            difference(losses, resampling, scope=scope, minus=source_of[reference])
            for reference in references
        ],
        list(source_of),
        resampling,
        lower_is_better=True,
    )
    return with_visible_by_width(found)


def difference(
    losses: pd.DataFrame,
    resampling: Resampling,
    *,
    scope: str,
    minus: str,
    source: str = "true",
    condition: str = AS_TRAINED,
) -> Contrast:
    """The training with a source, by default the true token, minus another, nats a token.

    `condition` is that of the first training. Documents and seeds are resampled, each on its own;
    with a single seed the interval knows of documents alone. What was measured once is the same for
    all seeds.

    Raises `ValueError` if there are no rows of one of them.
    """
    one, counts = _sums(losses, source, scope, condition)
    other, _ = _sums(losses, minus, scope, AS_TRAINED)
    present = counts > 0
    cells = np.stack([one.T[present], np.broadcast_to(other, one.shape).T[present]])
    shared = np.broadcast_to(counts[present][:, None], cells.shape[1:])
    pair = (_arm(source), _arm(minus))
    return contrast(Totals(pair, cells, shared), *pair, resampling)


def mean_losses(losses: pd.DataFrame) -> pd.DataFrame:
    """Loss of every training on every kind of text.

    Columns: source, condition, seed, scope, count of tokens, loss in nats a token.
    """
    keys = ["source", "condition", "seed", "scope"]
    found = losses.groupby(keys, sort=False)[["total", "count"]].sum().reset_index()
    return found.assign(loss=found["total"] / found["count"]).drop(columns="total")


def curves(rows: pd.DataFrame) -> pd.DataFrame:
    """Loss during training, on windows that are not among those measured.

    Columns: source, step, loss, low, high; low and high are the least and the most of the seeds.
    """
    of_seeds = rows.groupby(["source", "step"], sort=False)["total"].agg(["mean", "min", "max"])
    named = of_seeds.rename(columns={"mean": "loss", "min": "low", "max": "high"})
    return named.reset_index()


def _arm(source: str) -> Arm:
    return Arm(source, 0, 1.0, "trained")


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
