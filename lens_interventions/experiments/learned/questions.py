"""The questions about the true source against its controls."""

from dataclasses import dataclass

import pandas as pd

from ..design.material import text_tag
from ..design.questions import Question
from ..design.samples import LOOPED
from ..design.totals import Measure, Totals, totals_of
from ..engine.results import Tables
from .sampled import COPIES
from .settings import (
    AFTER_A_SURPRISE,
    FREE_COPIES,
    LOOPS,
    RANDOM_COPIES,
    RARE_WORDS,
    LearnedSettings,
)

TABLES = ("induction", "templates", "text", COPIES, LOOPS)
"""Rows that answer questions. Those of loops are sums of the samples."""

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
        all_tokens: whether it is about all tokens of texts, and not about those with a tag.
        units: of the measure.
        items: what is counted.
    """

    smallest: float
    all_tokens: bool = False
    units: str = "nats"
    items: str = "predictions"

    def totals(self, rows: Tables, half: str) -> Totals:
        """Sums of the measure per arm and cluster, over one half of the material."""
        found = rows[self.table]
        return totals_of(each_token_once(found) if self.all_tokens else found, self.measure, half)


def each_token_once(rows: pd.DataFrame) -> pd.DataFrame:
    """Of rows of text, which divide the tokens in several ways, those of one division."""
    return rows[rows["category"].str.split().str[-1].isin(["copyable", "other"])]


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
                all_tokens=True,
            )
            for text, tag in kinds
        ),
        LearnedQuestion(
            AFTER_A_SURPRISE,
            "Does it help right after something surprising really happened?",
            "text",
            Measure("loss", frozenset({"surprise-now"})),
            "loss on the token after a surprising one, all texts",
            smallest=material.smallest_text,
        ),
        LearnedQuestion(
            RANDOM_COPIES,
            "Does it help to copy random tokens said before?",
            "induction",
            Measure("loss"),
            "loss on the second copy of random tokens",
            smallest=material.smallest_copy,
        ),
        LearnedQuestion(
            RARE_WORDS,
            "Does it help to say a rare word again where the sentence calls for it?",
            "templates",
            Measure("log_prob", frozenset({"rare"}), lower_is_better=False),
            "log-probability of the word at the copy",
            smallest=material.smallest_copy,
        ),
        LearnedQuestion(
            FREE_COPIES,
            "Does it help to go on copying random tokens when nobody dictates them?",
            COPIES,
            Measure("right", lower_is_better=False),
            "share of right tokens in the second half of the second copy, decoded greedily",
            smallest=settings.smallest_share,
            units="of tokens",
            items="tokens",
        ),
        LearnedQuestion(
            LOOPS,
            "Does it keep greedy samples out of loops?",
            LOOPS,
            Measure(LOOPED),
            f"share of greedy samples of {settings.sampled_tokens} tokens that end in a loop",
            smallest=settings.smallest_share,
            units="of samples",
            items="samples",
        ),
    ]
