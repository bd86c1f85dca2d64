"""From the rows of the increment experiment to tables and verdicts."""

from collections.abc import Mapping

import pandas as pd

from ...drawing.labels import counted
from ..design.comparisons import Comparison
from ..design.conditions import NO_PATCH
from ..design.trained_patches.contrasts import against_all, curve_tables, difference, mean_losses
from ..design.trained_patches.findings import QUESTIONS, findings_on_texts
from ..design.trained_patches.losses import PENALISED, UNTRAINED, at_the_end
from ..engine.results import Analysis, Finding, Tables
from .figures import draw
from .measurements import BASE
from .settings import IncrementSettings
from .stages import FIRST, PILOT, TABLE, TRIAL, best_rate


def analyse(settings: IncrementSettings, rows: Tables) -> Analysis:
    """Tables, the rows of single texts among them, a verdict for each kind of text, and figures."""
    measured = rows[TABLE]
    losses = at_the_end(measured)
    references = (BASE, *settings.controls)
    compared = {
        scope: against_all(losses, references, settings.resampling, scope=scope, alone=BASE)
        for scope in QUESTIONS
    }
    tables = {
        "contrasts": contrasts(settings, losses, compared),
        "losses": mean_losses(losses),
        **curve_tables(measured),
        "base": of_base(rows),
        "rows": measured,
    }
    rates = said_rate(rows[PILOT]), said_rate(rows[TRIAL])
    return Analysis(tables, _findings(settings, losses, rates, compared), draw)


def contrasts(
    settings: IncrementSettings, losses: pd.DataFrame, compared: Mapping[str, Comparison]
) -> pd.DataFrame:
    """The increment of the true token minus every other, and the base minus the model as it is.

    Columns: scope, source, minus, estimate, low, high, level, method, n, p_value. The estimate is
    the change of the loss, nats a token; `minus` "base" is the base alone, and "none" the model as
    it is.
    """
    found = []
    for scope, comparison in compared.items():
        for row in comparison.rows():
            minus = BASE if row["minus"] == NO_PATCH.source else row["minus"]
            found.append({"scope": scope, **row, "minus": minus})
        for source in ("true", BASE):
            beside = difference(
                losses, settings.resampling, scope=scope, source=source, minus=UNTRAINED
            )
            found.append({"scope": scope, "source": source, "minus": UNTRAINED, **beside.columns()})
    return pd.DataFrame(found)


def of_base(rows: Tables) -> pd.DataFrame:
    """The trials of learning rates and the training of the base, without its write.

    Columns: training, rate, step, loss in nats a token, on windows that are not among those
    measured, and those of `PENALISED` that were.
    """
    names = {PILOT: "trial of the base", FIRST: "base", TRIAL: "trial of increments"}
    parts = [rows[table].assign(training=name) for table, name in names.items()]
    found = pd.concat(parts, ignore_index=True)
    return found[["training", "rate", "step", "loss", *found.columns.intersection([*PENALISED])]]


def said_rate(tried: pd.DataFrame) -> str:
    """The best rate of some trials, and whether it lies at the edge of those that were tried."""
    rate, rates = best_rate(tried), sorted(tried["rate"].unique())
    if len(rates) == 1:
        return f"{rate:g}"
    edge = {rates[0]: " and the lowest", rates[-1]: " and the highest"}.get(rate, "")
    return f"{rate:g}, the best{edge} of {len(rates)} that were tried"


def _findings(
    settings: IncrementSettings,
    losses: pd.DataFrame,
    rates: tuple[str, str],
    compared: Mapping[str, Comparison],
) -> tuple[Finding, ...]:
    """A verdict on each kind of text.

    `rates` are the learning rates of the base and of the increments in words, `compared` has the
    comparison of each kind.
    """
    rank = "full rank" if settings.rank is None else f"rank {settings.rank}"
    seeds = len(settings.seeds)
    return findings_on_texts(
        settings,
        losses,
        compared,
        question="Does the next token add to a learned write of the current one, on {text}?",
        method=f"At layer {settings.layer} a write of the current token, {rank}, was trained for "
        f"{settings.base_steps} steps of {settings.options.batch_size} windows of "
        f"{settings.options.window} tokens (learning rate {rates[0]}), and frozen. "
        "On top of it a write of the next token, of "
        f"the same rank, was trained for {settings.steps} steps from zero, with "
        f"{counted(seeds, 'seed')}, and so was every control; learning rate {rates[1]}, with "
        "the true token alone. "
        "{n} {clusters}. No patch is the frozen write alone, of a single training, which intervals "
        "take as given. {said} {resampled}",
    )
