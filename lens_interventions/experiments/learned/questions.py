"""The questions about the true source against its controls."""

from dataclasses import dataclass

from ..design.contrasts import Measure, Totals, totals_of
from ..design.samples import LOOPED
from ..engine.results import Tables
from .sampled import COPIES
from .settings import LearnedSettings

LOOPS = "loops"
"""Rows of sums of the samples."""

TABLES = ("induction", "templates", "text", COPIES, LOOPS)
"""Rows that answer questions."""

NAMES = {
    "prose": "prose",
    "python_reference": "Python reference, topics not trained on",
    "python_code": "code of Python's standard library",
}
"""Texts as a reader would name them."""


@dataclass(frozen=True)
class Question:
    """A question about the true source against its controls.

    Attributes:
        name: short.
        text: as a reader would ask it.
        table: name of the rows that answer it.
        measure: the measure that answers it.
        divisions: only categories with one of these tags; all categories if there are none.
        smallest: the smallest difference worth talking about, in `units`.
        material: the material it is measured on, in words.
        units: of the measure.
        items: what is counted.
    """

    name: str
    text: str
    table: str
    measure: Measure
    divisions: tuple[str, ...]
    smallest: float
    material: str
    units: str = "nats"
    items: str = "predictions"

    def totals(self, rows: Tables, half: str) -> Totals:
        """Sums of the measure per arm and cluster."""
        found = rows[self.table]
        if self.divisions:
            last = found["category"].str.split().str[-1]
            found = found[last.isin(self.divisions)]
        return totals_of(found, self.measure, half)


def questions(settings: LearnedSettings) -> list[Question]:
    """All questions, one verdict each."""
    material = settings.material
    kinds = [(text, text.replace(" ", "_")) for text in material.texts]
    whole = ("copyable", "other")
    return [
        *(
            Question(
                NAMES.get(text, text),
                f"Does a write learned from the true next token help on {NAMES.get(text, text)}?",
                "text",
                Measure("loss", frozenset({tag})),
                whole,
                material.smallest_text,
                "loss on all tokens",
            )
            for text, tag in kinds
        ),
        Question(
            "after a surprise",
            "Does it help right after something surprising really happened?",
            "text",
            Measure("loss", frozenset({"surprise-now"})),
            (),
            material.smallest_text,
            "loss on the token after a surprising one, all texts",
        ),
        Question(
            "random copies",
            "Does it help to copy random tokens said before?",
            "induction",
            Measure("loss"),
            (),
            material.smallest_copy,
            "loss on the second copy of random tokens",
        ),
        Question(
            "rare words",
            "Does it help to say a rare word again where the sentence calls for it?",
            "templates",
            Measure("log_prob", frozenset({"rare"}), lower_is_better=False),
            (),
            material.smallest_copy,
            "log-probability of the word at the copy",
        ),
        Question(
            "free copies",
            "Does it help to go on copying random tokens when nobody dictates them?",
            COPIES,
            Measure("right", lower_is_better=False),
            (),
            settings.smallest_share,
            "share of right tokens in the second half of the second copy, decoded greedily",
            "of tokens",
            "tokens",
        ),
        Question(
            "loops",
            "Does it keep greedy samples out of loops?",
            LOOPS,
            Measure(LOOPED),
            (),
            settings.smallest_share,
            f"share of greedy samples of {settings.sampled_tokens} tokens that end in a loop",
            "of samples",
            "samples",
        ),
    ]
