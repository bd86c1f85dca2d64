"""The verdicts of the reader experiment: one for each kind of text."""

from collections.abc import Mapping

import pandas as pd

from ..design.comparisons import WIDTH, Comparison, said_of, verdicts_on
from ..design.trained_patches.losses import ALL, COPYABLE, OTHER, SECOND
from ..engine.results import Finding
from .settings import ReaderSettings

QUESTIONS = {
    COPYABLE: "copyable tokens of held-out text",
    OTHER: "the other tokens of held-out text",
    ALL: "all tokens of held-out text",
    SECOND: "second copies of random tokens",
}
"""The kinds of text, and what a question calls them."""

_METHOD = (
    "The write of the true token enters layer {layer}{strength}; updates of rank {rank} of the "
    "queries, keys and values above it are trained for {steps} steps of {windows} windows of "
    "{window} tokens, with {seeds} seed{plural}. {n} {clusters}. No patch is a reader that was "
    "trained without a write. {said} {what} and seeds are resampled; few seeds say little of how "
    "others turn out."
)


def findings(
    settings: ReaderSettings, losses: pd.DataFrame, compared: Mapping[str, Comparison]
) -> tuple[Finding, ...]:
    """A verdict on each kind of text, with Holm's correction over them.

    `compared` has the comparison of each.
    """
    of_copies = (COPYABLE, SECOND)
    margins = [
        (settings.smallest_copyable if scope in of_copies else settings.smallest_all, "nats")
        for scope in compared
    ]
    judged = verdicts_on([*compared.values()], margins)
    return tuple(
        Finding(
            f"Does a reader that adapts gain from the true token on {QUESTIONS[scope]}?",
            verdict,
            _said(settings, losses, scope, comparison),
            "gain",
        )
        for (scope, comparison), verdict in zip(compared.items(), judged, strict=True)
    )


def _said(
    settings: ReaderSettings, losses: pd.DataFrame, scope: str, comparison: Comparison
) -> str:
    fixed = "" if settings.strength is None else f" at strength {settings.strength:g}"
    of_text = scope != SECOND
    return _METHOD.format(
        layer=settings.layer,
        strength=fixed,
        rank=settings.rank,
        steps=settings.steps,
        windows=settings.options.batch_size,
        window=settings.options.window,
        seeds=len(settings.seeds),
        plural="s" if len(settings.seeds) > 1 else "",
        n=losses.loc[losses["scope"] == scope, "cluster"].nunique(),
        clusters="documents" if of_text else "sequences",
        what="Documents" if of_text else "Sequences",
        said=said_of(comparison, "nats", basis=WIDTH),
    )
