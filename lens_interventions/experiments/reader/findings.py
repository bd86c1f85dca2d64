"""The verdicts of the reader experiment: one for each kind of text."""

from dataclasses import replace

import pandas as pd

from ...measures.verdicts import visible_by_width
from ..design.comparisons import WIDTH, Comparison, compare, said_of, verdicts_on
from ..engine.results import Finding
from .contrasts import arm_of, difference
from .measurements import ALL, COPYABLE, OTHER, SECOND
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


def findings(settings: ReaderSettings, losses: pd.DataFrame) -> tuple[Finding, ...]:
    """A verdict on each kind of text, with Holm's correction over them."""
    compared = [_compare(settings, losses, scope) for scope in QUESTIONS]
    of_copies = (COPYABLE, SECOND)
    margins = [
        (settings.smallest_copyable if scope in of_copies else settings.smallest_all, "nats")
        for scope in QUESTIONS
    ]
    return tuple(
        Finding(
            f"Does a reader that adapts gain from the true token on {asked}?",
            judged,
            _said(settings, losses, scope, comparison),
            "gain",
        )
        for (scope, asked), comparison, judged in zip(
            QUESTIONS.items(), compared, verdicts_on(compared, margins), strict=True
        )
    )


def _compare(settings: ReaderSettings, losses: pd.DataFrame, scope: str) -> Comparison:
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
