"""From the rows of the reader experiment to tables and verdicts."""

from collections.abc import Mapping

import pandas as pd

from ...drawing.labels import counted
from ..design.comparisons import Comparison
from ..design.conditions import NO_PATCH
from ..design.text_scopes import AS_TRAINED, TAKEN_AWAY
from ..design.trained_patches.contrasts import against_all, curve_tables, difference, mean_losses
from ..design.trained_patches.findings import QUESTIONS, findings_on_texts
from ..design.trained_patches.losses import UNTRAINED, at_the_end
from ..engine.results import Analysis, Finding, Tables
from .figures import draw
from .settings import ALONE, ReaderSettings
from .stages import TABLE


def analyse(settings: ReaderSettings, rows: Tables) -> Analysis:
    """Tables, the rows of single texts among them, a verdict for each kind of text, and figures."""
    measured = rows[TABLE]
    losses = at_the_end(measured)
    compared = {
        scope: against_all(losses, settings.controls, settings.resampling, scope=scope, alone=ALONE)
        for scope in QUESTIONS
    }
    tables = {
        "contrasts": contrasts(settings, losses, compared),
        "losses": mean_losses(losses),
        **curve_tables(measured),
        "rows": measured,
    }
    return Analysis(tables, _findings(settings, losses, compared), draw)


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


def _findings(
    settings: ReaderSettings, losses: pd.DataFrame, compared: Mapping[str, Comparison]
) -> tuple[Finding, ...]:
    """A verdict on each kind of text; `compared` has the comparison of each."""
    if settings.strength is None:
        write = f"through a map of rank {settings.rank} that is learned too"
        alone = "with a learned bias alone"
    else:
        write, alone = f"at strength {settings.strength:g}", "without a write"
    seeds = len(settings.seeds)
    changed = "queries, keys and values"
    if settings.adapt == "attention+mlp":
        changed = "queries, keys, values and MLPs"
    return findings_on_texts(
        settings,
        losses,
        compared,
        question="Does a reader that adapts gain from the true token on {text}?",
        method=f"The true token is written at layer {settings.layer} {write}; updates of rank "
        f"{settings.rank} of the {changed} above it are trained for "
        f"{settings.steps} steps of {settings.options.batch_size} windows of "
        f"{settings.options.window} tokens, with {counted(seeds, 'seed')}. "
        f"{{n}} {{clusters}}. No patch is a reader that was trained {alone}. {{said}} "
        "{resampled}",
    )
