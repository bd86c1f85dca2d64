"""Differences of trainings that share texts and seeds, with intervals over both."""

from collections.abc import Sequence

import pandas as pd

from ..comparisons import Comparison, compare_trainings
from ..contrasts import Contrast, Resampling, seed_contrast
from ..rows_of_sums import range_of_seeds, rows_where
from ..text_scopes import AS_TRAINED
from .losses import CURVE, PENALISED


def against_all(
    losses: pd.DataFrame,
    references: Sequence[str],
    resampling: Resampling,
    *,
    scope: str,
    alone: str,
) -> Comparison:
    """The training with the true token minus each of the others, and minus the best of them.

    `alone` names the one of the `references` that stands for no patch.
    """

    def true_minus(source: str, resampling: Resampling) -> Contrast:
        return difference(losses, resampling, scope=scope, minus=source)

    return compare_trainings(true_minus, references, resampling, alone=alone)


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
    one = rows_where(losses, source=source, scope=scope, condition=condition)
    other = rows_where(losses, source=minus, scope=scope, condition=AS_TRAINED)
    return seed_contrast(one, other, resampling)


def mean_losses(losses: pd.DataFrame) -> pd.DataFrame:
    """Loss of every training on every kind of text.

    Columns: source, condition, seed, scope, count of tokens, loss in nats a token.
    """
    keys = ["source", "condition", "seed", "scope"]
    found = losses.groupby(keys, sort=False)[["total", "count"]].sum().reset_index()
    return found.assign(loss=found["total"] / found["count"]).drop(columns="total")


def curve_tables(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What was measured during training, on texts that are not among those measured at the end.

    The table `curves` has the loss. Columns: source, step, loss, low, high; low and high are the
    least and the most of the seeds. Trainings with penalties have a table `penalties`. Columns:
    penalised, which is "write_length" or "kl", source, step, mean, low, high.
    """
    ends = {"lowest": "low", "highest": "high"}
    losses = range_of_seeds(rows[rows["scope"] == CURVE], ["source", "step"])
    found = {"curves": losses.rename(columns={"mean": "loss", **ends})}
    told = rows[rows["scope"].isin([*PENALISED])].rename(columns={"scope": "penalised"})
    if len(told):
        means = range_of_seeds(told, ["penalised", "source", "step"])
        found["penalties"] = means.rename(columns=ends)
    return found
