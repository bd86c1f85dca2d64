"""From the rows of the reader experiment to tables and verdicts."""

from collections.abc import Mapping

import pandas as pd

from ..design.comparisons import Comparison
from ..design.conditions import NO_PATCH
from ..engine.results import Analysis, Tables
from .contrasts import against_all, difference
from .figures import draw
from .findings import QUESTIONS, findings
from .measurements import AS_TRAINED, CURVE, TAKEN_AWAY, UNTRAINED
from .settings import ALONE, ReaderSettings
from .stages import TABLE


def analyse(settings: ReaderSettings, rows: Tables) -> Analysis:
    """Tables, the rows of single texts among them, a verdict for each kind of text, and figures."""
    measured = rows[TABLE]
    on_the_way = measured["scope"] == CURVE
    losses = measured[~on_the_way]
    compared = {scope: against_all(settings, losses, scope) for scope in QUESTIONS}
    tables = {
        "contrasts": contrasts(settings, losses, compared),
        "losses": mean_losses(losses),
        "curves": curves(measured[on_the_way]),
        "rows": measured,
    }
    return Analysis(tables, findings(settings, losses, compared), draw)


def contrasts(
    settings: ReaderSettings, losses: pd.DataFrame, compared: Mapping[str, Comparison]
) -> pd.DataFrame:
    """The reader with the true token minus every other, and what it does without its write.

    Columns: scope, condition, minus, estimate, low, high, level, method, n, p_value. The estimate
    is the change of the loss, nats a token; `minus` "zero" is the reader alone, and "none" the
    model as it is.
    """
    found = []
    for scope, comparison in compared.items():
        for row in comparison.rows():
            minus = ALONE if row["minus"] == NO_PATCH.source else row["minus"]
            found.append({"scope": scope, "condition": AS_TRAINED, **row, "minus": minus})
        for condition, minus in ((AS_TRAINED, UNTRAINED), (TAKEN_AWAY, ALONE)):
            beside = difference(
                losses, settings.resampling, scope=scope, minus=minus, condition=condition
            )
            found.append(
                {"scope": scope, "condition": condition, "minus": minus, **beside.columns()}
            )
    return pd.DataFrame(found).drop(columns="source")


def mean_losses(losses: pd.DataFrame) -> pd.DataFrame:
    """Loss of every training on every kind of text.

    Columns: source, condition, seed, scope, count of tokens, loss in nats a token.
    """
    keys = ["source", "condition", "seed", "scope"]
    found = losses.groupby(keys, sort=False)[["total", "count"]].sum().reset_index()
    return found.assign(loss=found["total"] / found["count"]).drop(columns="total")


def curves(rows: pd.DataFrame) -> pd.DataFrame:
    """Held-out loss on the way, on windows that are not among those measured.

    Columns: source, step, loss, low, high; the latter two are the least and the most of the seeds.
    """
    of_seeds = rows.groupby(["source", "step"], sort=False)["total"].agg(["mean", "min", "max"])
    named = of_seeds.rename(columns={"mean": "loss", "min": "low", "max": "high"})
    return named.reset_index()
