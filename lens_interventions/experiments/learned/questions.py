"""The questions about the true source against its controls."""

from dataclasses import dataclass

from ..design.material import text_tag
from ..design.questions import Question
from ..design.samples import LOOPED
from ..design.totals import Measure, Totals, totals_of
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
class LearnedQuestion(Question):
    """A question of the learned experiment.

    Attributes:
        smallest: the smallest difference worth talking about, in `units`.
        divisions: only categories with one of these tags; all categories if there are none.
        units: of the measure.
        items: what is counted.
    """

    smallest: float
    divisions: tuple[str, ...] = ()
    units: str = "nats"
    items: str = "predictions"

    def totals(self, rows: Tables, half: str) -> Totals:
        """Sums of the measure per arm and cluster, over one half of the material."""
        found = rows[self.table]
        if self.divisions:
            last = found["category"].str.split().str[-1]
            found = found[last.isin(self.divisions)]
        return totals_of(found, self.measure, half)


def questions(settings: LearnedSettings) -> list[LearnedQuestion]:
    """All questions, one verdict each."""
    material = settings.material
    kinds = [(text, text_tag(text)) for text in material.texts]
    return [
        *(
            LearnedQuestion(
                NAMES.get(text, text),
                f"Does a write learned from the true next token help on {NAMES.get(text, text)}?",
                "text",
                Measure("loss", frozenset({tag})),
                "loss on all tokens",
                smallest=material.smallest_text,
                divisions=("copyable", "other"),
            )
            for text, tag in kinds
        ),
        LearnedQuestion(
            "after a surprise",
            "Does it help right after something surprising really happened?",
            "text",
            Measure("loss", frozenset({"surprise-now"})),
            "loss on the token after a surprising one, all texts",
            smallest=material.smallest_text,
        ),
        LearnedQuestion(
            "random copies",
            "Does it help to copy random tokens said before?",
            "induction",
            Measure("loss"),
            "loss on the second copy of random tokens",
            smallest=material.smallest_copy,
        ),
        LearnedQuestion(
            "rare words",
            "Does it help to say a rare word again where the sentence calls for it?",
            "templates",
            Measure("log_prob", frozenset({"rare"}), lower_is_better=False),
            "log-probability of the word at the copy",
            smallest=material.smallest_copy,
        ),
        LearnedQuestion(
            "free copies",
            "Does it help to go on copying random tokens when nobody dictates them?",
            COPIES,
            Measure("right", lower_is_better=False),
            "share of right tokens in the second half of the second copy, decoded greedily",
            smallest=settings.smallest_share,
            units="of tokens",
            items="tokens",
        ),
        LearnedQuestion(
            "loops",
            "Does it keep greedy samples out of loops?",
            LOOPS,
            Measure(LOOPED),
            f"share of greedy samples of {settings.sampled_tokens} tokens that end in a loop",
            smallest=settings.smallest_share,
            units="of samples",
            items="samples",
        ),
    ]
