"""Findings on questions that are judged together, with Holm's correction over them.

A contrast that needs no further references, such as a share, a correlation or a difference, answers
an `Asked`; the true source against no patch and every control at once answers a `Compared`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...measures.intervals import Interval, holm
from ...measures.verdicts import verdict, visible_by_width
from ..engine.results import Finding
from .comparisons import Comparison, verdicts_on
from .contrasts import Contrast
from .simultaneous import MAX_T


@dataclass(frozen=True)
class Asked:
    """A question, and the contrast that answers it.

    Attributes:
        question, method, figure: as in `Finding`.
        contrast: what was found, with its p-value before any correction.
        smallest_effect, lower_is_better, units: as in `verdict`.
    """

    question: str
    contrast: Contrast
    method: str
    figure: str
    smallest_effect: float
    lower_is_better: bool = False
    units: str = ""


def judged(asked: Sequence[Asked]) -> tuple[Finding, ...]:
    """A finding on each question, with Holm's correction over them, which the method then names.

    The smallest visible effect follows from the width of an interval. It is left out for intervals
    that hold for a whole grid, which are wider than that of a single cell.
    """
    over = f"corrected by Holm's method over {len(asked)} questions"
    p_values = holm(np.array([each.contrast.p_value for each in asked], dtype=np.float64))
    return tuple(
        Finding(
            each.question,
            verdict(
                each.contrast.interval,
                smallest_effect=each.smallest_effect,
                lower_is_better=each.lower_is_better,
                units=each.units,
                p_value=float(p_value),
                smallest_visible=_visible(each.contrast.interval),
            ),
            f"{each.method.rstrip()} p = {p_value:.2g}, {over}.",
            each.figure,
        )
        for each, p_value in zip(asked, p_values, strict=True)
    )


@dataclass(frozen=True)
class Compared:
    """A question on the true source, and the comparison with all its references that answers it.

    Attributes:
        question, method, figure: as in `Finding`.
        comparison: what was found, with its p-values before any correction.
        smallest_effect, units: as in `verdict`.
    """

    question: str
    comparison: Comparison
    method: str
    figure: str
    smallest_effect: float
    units: str = ""


def judged_comparisons(compared: Sequence[Compared]) -> tuple[Finding, ...]:
    """A finding on each question, by `verdicts_on`."""
    verdicts = verdicts_on(
        [each.comparison for each in compared],
        [(each.smallest_effect, each.units) for each in compared],
    )
    return tuple(
        Finding(each.question, judged, each.method, each.figure)
        for each, judged in zip(compared, verdicts, strict=True)
    )


def resampled(what: str, seeds: int) -> str:
    """A sentence on what intervals know of, for trainings with so many seeds."""
    if seeds > 1:
        return f"{what} and seeds are resampled; few seeds say little of how others turn out."
    return f"{what} are resampled; how another seed would have turned out is not known."


def _visible(interval: Interval) -> float | None:
    return None if interval.method == MAX_T else visible_by_width(interval)
