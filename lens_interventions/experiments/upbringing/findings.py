"""The verdicts of the upbringing experiment: ten comparisons in four questions."""

from dataclasses import dataclass

import pandas as pd

from ...drawing.labels import counted
from ...model.points import FINAL, point_name, select_points
from ..design.contrasts import seed_contrast
from ..design.findings import Asked, judged, resampled
from ..design.rows_of_sums import rows_where
from ..design.text_scopes import ALL, COPYABLE
from ..engine.results import Finding
from .arms import MYOPIC, NO_DECAY, PLAIN, STOPPED, STRONG_DECAY, UNTIED
from .evaluation import KL, LOSS, RECOVERED
from .settings import UpbringingSettings


@dataclass(frozen=True)
class Question:
    """A comparison of two arms.

    Attributes:
        asked: as a reader would ask it.
        arm, minus: what is subtracted from what.
        measure, scope, point: what of them.
    """

    asked: str
    arm: str
    minus: str
    measure: str
    scope: str
    point: str


def middle_point(settings: UpbringingSettings) -> str:
    """The point that has as many blocks below it as above."""
    return select_points(settings.blocks)[settings.blocks // 2]


def questions(settings: UpbringingSettings) -> list[Question]:
    """What is asked, in order."""
    middle = middle_point(settings)
    readable = [
        Question(asked, arm, minus, KL, ALL, middle)
        for asked, arm, minus in (
            (
                "Does weight decay help the middle layer to speak the output's language?",
                STRONG_DECAY,
                NO_DECAY,
            ),
            (
                "Does one matrix for embedding and unembedding help the middle layer to speak the "
                "output's language?",
                PLAIN,
                UNTIED,
            ),
        )
    ]
    taught = {
        MYOPIC: "to train every layer on the next token",
        STOPPED: "to train every layer on the next token, no block for a later one",
    }
    costs = [
        Question(f"Does it help the loss on {scope} tokens {how}?", arm, PLAIN, LOSS, scope, FINAL)
        for arm, how in taught.items()
        for scope in (ALL, COPYABLE)
    ]
    kept = [
        Question(
            f"Does it help to keep the input {where} {how}?", arm, PLAIN, RECOVERED, ALL, point
        )
        for arm, how in taught.items()
        for where, point in (("in the middle", middle), ("at the output", FINAL))
    ]
    return readable + costs + kept


# Of each measure: what it is, and the figure that shows it.
_MEASURED = {
    KL: ("KL(final ‖ layer) through the network's own norm and unembedding", "kl"),
    LOSS: ("Loss on {scope} tokens", "curves"),
    RECOVERED: (
        "Share of input tokens that a linear map of the point finds among the vocabulary",
        "recovered",
    ),
}

_METHOD = (
    "{measured} at {point}, {arm} minus {minus}: {of_arm:.3f} against {of_minus:.3f}. Networks of "
    "{blocks} blocks of width {width} after {steps} steps of {batch} texts of {context} tokens; "
    "{seeds}, {n} held-out documents. {resampled}"
)


def findings(settings: UpbringingSettings, final: pd.DataFrame) -> tuple[Finding, ...]:
    """A verdict on each question, with Holm's correction over them.

    `final` has the rows of all trainings after the last step.
    """
    return judged([_answered(settings, final, question) for question in questions(settings)])


def _margin(settings: UpbringingSettings, question: Question) -> float:
    """The smallest difference worth talking about."""
    of_loss = settings.smallest_all if question.scope == ALL else settings.smallest_copyable
    margins = {KL: settings.smallest_kl, LOSS: of_loss, RECOVERED: settings.smallest_share}
    return margins[question.measure]


def _answered(settings: UpbringingSettings, final: pd.DataFrame, question: Question) -> Asked:
    asked = {"measure": question.measure, "scope": question.scope, "point": question.point}
    one, other = (rows_where(final, arm=arm, **asked) for arm in (question.arm, question.minus))
    measured, figure = _MEASURED[question.measure]
    where = "the output" if question.point == FINAL else f"point {point_name(question.point)}"
    method = _METHOD.format(
        measured=measured.format(scope=question.scope),
        point=where,
        arm=question.arm,
        minus=question.minus,
        of_arm=one["total"].sum() / one["count"].sum(),
        of_minus=other["total"].sum() / other["count"].sum(),
        blocks=settings.blocks,
        width=settings.width,
        steps=settings.steps,
        batch=settings.batch,
        context=settings.context,
        seeds=counted(len(settings.seeds), "seed"),
        n=one["cluster"].nunique(),
        resampled=resampled("Texts", len(settings.seeds)),
    )
    return Asked(
        question.asked,
        seed_contrast(one, other, settings.resampling),
        method,
        figure,
        _margin(settings, question),
        lower_is_better=question.measure != RECOVERED,
        units="of tokens" if question.measure == RECOVERED else "nats",
    )
