"""The verdicts of the reader experiment: one for each kind of text."""

from collections.abc import Mapping

import pandas as pd

from ..design.comparisons import Comparison
from ..design.trained_patches.findings import findings_on_texts
from ..engine.results import Finding
from .settings import ReaderSettings


def findings(
    settings: ReaderSettings, losses: pd.DataFrame, compared: Mapping[str, Comparison]
) -> tuple[Finding, ...]:
    """A verdict on each kind of text; `compared` has the comparison of each."""
    fixed = "" if settings.strength is None else f" at strength {settings.strength:g}"
    seeds = len(settings.seeds)
    return findings_on_texts(
        settings,
        losses,
        compared,
        question="Does a reader that adapts gain from the true token on {text}?",
        method=f"The write of the true token enters layer {settings.layer}{fixed}; updates of rank "
        f"{settings.rank} of the queries, keys and values above it are trained for "
        f"{settings.steps} steps of {settings.options.batch_size} windows of "
        f"{settings.options.window} tokens, with {seeds} seed{'s' if seeds > 1 else ''}. "
        "{n} {clusters}. No patch is a reader that was trained without a write. {said} {what} and "
        "seeds are resampled; few seeds say little of how others turn out.",
    )
