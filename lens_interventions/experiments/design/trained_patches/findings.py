"""A verdict for each kind of text on which trainings are compared."""

from collections.abc import Mapping

import pandas as pd

from ...engine.results import Finding
from ..comparisons import Comparison, said_of
from ..findings import Compared, judged_comparisons, resampled
from ..text_scopes import ALL, COPYABLE, OTHER, SECOND
from .settings import TrainedPatchSettings

QUESTIONS = {
    COPYABLE: "copyable tokens of held-out text",
    OTHER: "the other tokens of held-out text",
    ALL: "all tokens of held-out text",
    SECOND: "second copies of random tokens",
}
"""The kinds of text, and what a question calls them."""

_DOCUMENTS = "documents (those that share a passage count as one)"


def findings_on_texts(
    settings: TrainedPatchSettings,
    losses: pd.DataFrame,
    compared: Mapping[str, Comparison],
    *,
    question: str,
    method: str,
) -> tuple[Finding, ...]:
    """A verdict on each kind of text, with Holm's correction over them.

    **Arguments:**

    - `losses`: rows of `measured_losses`.
    - `compared`: the comparison on each kind of text.
    - `question`: with `{text}` where the kind of text is named.
    - `method`: with `{n}` and `{clusters}` for what was measured, `{resampled}` for a sentence on
        what intervals know of, and `{said}` for the comparison.
    """
    of_copies = (COPYABLE, SECOND)
    return judged_comparisons(
        [
            Compared(
                question.format(text=QUESTIONS[scope]),
                comparison,
                method.format(
                    n=losses.loc[losses["scope"] == scope, "cluster"].nunique(),
                    clusters="sequences" if scope == SECOND else _DOCUMENTS,
                    resampled=resampled(
                        "Sequences" if scope == SECOND else "Documents", len(settings.seeds)
                    ),
                    said=said_of(comparison, "nats"),
                )
                + _said_penalties(settings),
                "gain",
                settings.smallest_copyable if scope in of_copies else settings.smallest_all,
                "nats",
            )
            for scope, comparison in compared.items()
        ]
    )


def _said_penalties(settings: TrainedPatchSettings) -> str:
    options, said = settings.options, ""
    if options.write_penalty:
        said += (
            f" In training a write as long as the residual cost {options.write_penalty:g} nats a "
            "token."
        )
    if options.change_penalty:
        said += (
            f" In training a nat of KL(clean ‖ patched) on {settings.samples} texts that the model "
            f"wrote cost {options.change_penalty:g}."
        )
    return said
