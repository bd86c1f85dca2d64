"""The questions of the copying experiment."""

from dataclasses import dataclass

from ..design.questions import Question
from ..design.totals import Measure
from .first_order import WORD

REPEATS = "repeats"
"""The table of later repeats of surprising tokens."""

AT_SURPRISES = "surprised output"
"""The form of the patch there."""

TABLES = ("induction", "templates", "text", REPEATS)
"""Rows that answer questions."""


@dataclass(frozen=True)
class CopyingQuestion(Question):
    """A question of the copying experiment.

    Attributes:
        scope: the predictions that it is about, as slopes name them.
        chosen_by: name of another question whose cell it uses; empty if it chooses one.
    """

    scope: str
    chosen_by: str = ""


QUESTIONS = (
    CopyingQuestion(
        "induction",
        "Does seeing the true tokens help to copy random tokens said before?",
        "induction",
        Measure("loss"),
        "loss on the second copy of random tokens",
        scope="copyable",
    ),
    *(
        CopyingQuestion(
            f"{kind} words",
            f"Does it help to say a {kind} word again where the sentence calls for it?",
            "templates",
            Measure("log_prob", frozenset({kind}), lower_is_better=False),
            f"log-probability of a {kind} word at the copy",
            scope=WORD,
        )
        for kind in ("rare", "common")
    ),
    CopyingQuestion(
        "copyable",
        "Does it help on tokens of natural text that could have been copied?",
        "text",
        Measure("loss", frozenset({"copyable"})),
        "loss on tokens that complete an earlier pair",
        scope="copyable",
    ),
    CopyingQuestion(
        "other",
        "What does that do to the other tokens of natural text?",
        "text",
        Measure("loss", frozenset({"other"})),
        "loss on tokens that do not complete an earlier pair",
        scope="other",
        chosen_by="copyable",
    ),
    CopyingQuestion(
        "surprise",
        "Does it help right after something surprising really happened?",
        "text",
        Measure("loss", frozenset({"surprise-now"})),
        "loss on the token after a surprising one",
        scope="after_surprise",
    ),
    CopyingQuestion(
        "repeats",
        "Does seeing a surprising token where it first stood help to say it again later?",
        REPEATS,
        Measure("loss", frozenset({"repeat"})),
        "loss on later repeats of a token that was surprising where it first stood; the patch is "
        "at surprising tokens alone",
        scope="repeated_surprise",
    ),
)
