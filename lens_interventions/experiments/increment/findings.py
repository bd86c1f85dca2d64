"""The verdicts of the increment experiment: one for each kind of text."""

from collections.abc import Mapping

import pandas as pd

from ..design.comparisons import Comparison
from ..design.trained_patches.findings import findings_on_texts
from ..engine.results import Finding
from .settings import IncrementSettings


def findings(
    settings: IncrementSettings,
    losses: pd.DataFrame,
    rate: float,
    compared: Mapping[str, Comparison],
) -> tuple[Finding, ...]:
    """A verdict on each kind of text.

    `rate` is the increments' learning rate, `compared` has the comparison of each kind.
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
        f"{settings.options.window} tokens, and frozen. On top of it a write of the next token, of "
        f"the same rank, was trained for {settings.steps} steps from zero, with {seeds} "
        f"seed{'s' if seeds > 1 else ''}, and so was every control; learning rate {rate:g}. "
        "{n} {clusters}. No patch is the frozen write alone. {said} {what} and seeds are "
        "resampled; few seeds say little of how others turn out.",
    )
