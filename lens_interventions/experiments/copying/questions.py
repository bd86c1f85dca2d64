"""The questions of the copying experiment."""

from dataclasses import dataclass

from ..design.contrasts import Measure
from .first_order import WORD

REPEATS = "repeats"
"""The table of later repeats of surprising tokens."""

AT_SURPRISES = "surprised output"
"""The form of the patch there."""

TABLES = ("induction", "templates", "text", REPEATS)
"""Rows that answer questions."""


@dataclass(frozen=True)
class Question:
    """A question of the experiment.

    Attributes:
        name: short.
        text: as a reader would ask it.
        table: name of the rows that answer it.
        measure: the measure that answers it.
        chosen_by: name of the question whose cell it uses; its own name if it chooses one.
        material: the material it is measured on, in words.
        scope: the predictions that it is about, as slopes name them.
    """

    name: str
    text: str
    table: str
    measure: Measure
    chosen_by: str
    material: str
    scope: str


QUESTIONS = (
    Question(
        "induction",
        "Does seeing the true tokens help to copy random tokens said before?",
        "induction",
        Measure("loss"),
        "induction",
        "loss on the second copy of random tokens",
        "copyable",
    ),
    *(
        Question(
            f"{kind} words",
            f"Does it help to say a {kind} word again where the sentence calls for it?",
            "templates",
            Measure("log_prob", frozenset({kind}), lower_is_better=False),
            f"{kind} words",
            f"log-probability of a {kind} word at the copy",
            WORD,
        )
        for kind in ("rare", "common")
    ),
    Question(
        "copyable",
        "Does it help on tokens of natural text that could have been copied?",
        "text",
        Measure("loss", frozenset({"copyable"})),
        "copyable",
        "loss on tokens that complete an earlier pair",
        "copyable",
    ),
    Question(
        "other",
        "What does that do to the other tokens of natural text?",
        "text",
        Measure("loss", frozenset({"other"})),
        "copyable",
        "loss on tokens that do not complete an earlier pair",
        "other",
    ),
    Question(
        "surprise",
        "Does it help right after something surprising really happened?",
        "text",
        Measure("loss", frozenset({"surprise-now"})),
        "surprise",
        "loss on the token after a surprising one",
        "after_surprise",
    ),
    Question(
        "repeats",
        "Does seeing a surprising token where it first stood help to say it again later?",
        REPEATS,
        Measure("loss", frozenset({"repeat"})),
        "repeats",
        "loss on later repeats of a token that was surprising where it first stood; the patch is "
        "there alone",
        "repeated_surprise",
    ),
)
