"""A section of the page: a claim, conditions to judge it by, measurements and figures."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import plotly.graph_objects as go

Verdict = Literal["agrees", "partly", "disagrees"]

RULE = (
    "A model agrees with a finding when every condition below it holds, disagrees when none does, "
    "and partly agrees otherwise. The conditions are our reading of the post; the numbers were "
    "measured when this page was made."
)


@dataclass(frozen=True)
class Condition:
    """One implication of a finding, and whether it holds.

    Attributes:
        says: the implication, with its threshold.
        holds: whether it does.
        measured: the numbers that decide it.
    """

    says: str
    holds: bool
    measured: str


@dataclass(frozen=True)
class Figure:
    """A figure and the sentence above it, which says what to look for."""

    caption: str
    figure: "go.Figure"


@dataclass(frozen=True)
class Section:
    """A finding of the post, tested on a model.

    Attributes:
        name: the name that links use.
        title: the finding in a few words.
        claim: the post's claim.
        conditions: the conditions that decide the verdict.
        text: paragraphs about the readings and their meaning.
        figures: the figures, in the order of reading.
        brief: the measurement, in a few words for the summary.
    """

    name: str
    title: str
    claim: str
    conditions: tuple[Condition, ...]
    text: tuple[str, ...]
    figures: tuple[Figure, ...]
    brief: str = ""

    @property
    def verdict(self) -> Verdict:
        """The verdict by `RULE`."""
        holding = sum(condition.holds for condition in self.conditions)
        if holding == len(self.conditions):
            return "agrees"
        return "partly" if holding else "disagrees"
