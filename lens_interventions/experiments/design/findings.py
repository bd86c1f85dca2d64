"""A verdict on one interval that needs no references: a share, a correlation, a difference."""

from ...measures.intervals import Interval
from ...measures.verdicts import verdict, visible_by_width
from ..engine.results import Finding


def interval_finding(
    question: str,
    interval: Interval,
    method: str,
    figure: str,
    *,
    smallest_effect: float,
    lower_is_better: bool = False,
    units: str,
    p_value: float | None = None,
) -> Finding:
    """The finding whose verdict is that of `interval`; its width tells what could be seen.

    The arguments are those of `Finding` and of `verdict`.
    """
    judged = verdict(
        interval,
        smallest_effect=smallest_effect,
        lower_is_better=lower_is_better,
        units=units,
        p_value=p_value,
        smallest_visible=visible_by_width(interval),
    )
    return Finding(question, judged, method, figure)
