"""The verdicts of the increment experiment: one for each kind of text."""

from collections.abc import Mapping

import pandas as pd

from ..design.comparisons import WIDTH, Comparison, said_of, verdicts_on
from ..design.trained_patches.losses import ALL, COPYABLE, OTHER, SECOND
from ..engine.results import Finding
from .settings import IncrementSettings

QUESTIONS = {
    COPYABLE: "copyable tokens of held-out text",
    OTHER: "the other tokens of held-out text",
    ALL: "all tokens of held-out text",
    SECOND: "second copies of random tokens",
}
"""The kinds of text, and what a question calls them."""

_METHOD = (
    "At layer {layer} a write of the current token, {rank}, was trained for {base_steps} steps of "
    "{windows} windows of {window} tokens, and frozen. On top of it a write of the next token, of "
    "the same rank, was trained for {steps} steps from zero, with {seeds} seed{plural}, and so was "
    "every control; learning rate {rate:g}. {n} {clusters}. No patch is the frozen write alone. "
    "{said} {what} and seeds are resampled; few seeds say little of how others turn out."
)


def findings(
    settings: IncrementSettings,
    losses: pd.DataFrame,
    rate: float,
    compared: Mapping[str, Comparison],
) -> tuple[Finding, ...]:
    """A verdict on each kind of text, with Holm's correction over them.

    `rate` is the increments' learning rate, `compared` has the comparison of each.
    """
    of_copies = (COPYABLE, SECOND)
    margins = [
        (settings.smallest_copyable if scope in of_copies else settings.smallest_all, "nats")
        for scope in compared
    ]
    judged = verdicts_on([*compared.values()], margins)
    return tuple(
        Finding(
            "Does the next token add to a learned write of the current one, on "
            f"{QUESTIONS[scope]}?",
            verdict,
            _said(settings, losses, rate, scope, comparison),
            "gain",
        )
        for (scope, comparison), verdict in zip(compared.items(), judged, strict=True)
    )


def _said(
    settings: IncrementSettings,
    losses: pd.DataFrame,
    rate: float,
    scope: str,
    comparison: Comparison,
) -> str:
    of_text = scope != SECOND
    return _METHOD.format(
        layer=settings.layer,
        rank="full rank" if settings.rank is None else f"rank {settings.rank}",
        base_steps=settings.base_steps,
        windows=settings.options.batch_size,
        window=settings.options.window,
        steps=settings.steps,
        seeds=len(settings.seeds),
        plural="s" if len(settings.seeds) > 1 else "",
        rate=rate,
        n=losses.loc[losses["scope"] == scope, "cluster"].nunique(),
        clusters="documents" if of_text else "sequences",
        what="Documents" if of_text else "Sequences",
        said=said_of(comparison, "nats", basis=WIDTH),
    )
