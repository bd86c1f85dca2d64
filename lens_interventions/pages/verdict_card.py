"""A finding of an experiment on a page: words, a number, and a drawing of its interval."""

import math
import re
from dataclasses import dataclass

from ..drawing.labels import signed
from ..experiments import Finding
from ..measures.verdicts import Verdict

_WIDTH, _MARGIN = 400, 8


@dataclass(frozen=True)
class Strip:
    """The positions of an interval, zero and the range of no effect in a drawing.

    Attributes:
        low, estimate, high: the interval, in units of the drawing, which is 400 wide.
        zero: the position of zero.
        band: the ends of the range that counts as no effect.
        no_effect: that range in words.
        better: the side on which the outcome is better, "left" or "right".
        label: the drawing in words.
    """

    low: float
    estimate: float
    high: float
    zero: float
    band: tuple[float, float]
    no_effect: str
    better: str
    label: str


@dataclass(frozen=True)
class VerdictCard:
    """The values of a finding that `verdict_card.html` shows.

    Attributes:
        question: the question as a reader would ask it.
        outcome: the verdict's outcome, such as "no effect".
        words: the outcome, with the size of the effect that it is about.
        number: the estimate and its interval, with units and the reference of the difference.
        method: what was compared, and how.
        strip: the drawing; None for a verdict without an interval.
    """

    question: str
    outcome: str
    words: str
    number: str
    method: str
    strip: Strip | None


def verdict_card(finding: Finding) -> VerdictCard:
    """The card of a finding."""
    verdict = finding.verdict
    return VerdictCard(
        question=finding.question,
        outcome=verdict.outcome,
        words=verdict.words,
        number=_number(verdict),
        # Numbers of a method are written with a hyphen in results.
        method=re.sub(r"(?<=[ \[])-(?=\d)", "−", finding.method),
        strip=_strip(verdict),
    )


def _number(verdict: Verdict) -> str:
    interval = verdict.interval
    estimate, low, high = _alike(interval.estimate, interval.low, interval.high)
    estimate = f"{estimate} {verdict.units}".strip()
    if interval.method == "none":
        return f"{estimate} (no interval, n = {interval.n})"
    against = f" against {verdict.against}" if verdict.against else ""
    return (
        f"{estimate} [{low}, {high}]{against} "
        f"({100 * interval.level:g}% {interval.method}, n = {interval.n})"
    )


def _alike(*values: float) -> list[str]:
    """Values with as many decimals as tell the lowest and the highest apart by two digits."""
    width = max(values) - min(values)
    if not math.isfinite(width) or width == 0:
        return [signed(value) for value in values]
    decimals = max(1 - math.floor(math.log10(width)), 0)
    return [f"{value:+.{decimals}f}".replace("-", "−") for value in values]


def _strip(verdict: Verdict) -> Strip | None:
    interval, margin = verdict.interval, verdict.smallest_effect
    if not all(map(math.isfinite, (interval.estimate, interval.low, interval.high))):
        return None
    reach = 1.15 * max(abs(interval.low), abs(interval.high), abs(interval.estimate), 1.6 * margin)

    def place(value: float) -> float:
        return _MARGIN + (value / reach + 1) / 2 * (_WIDTH - 2 * _MARGIN)

    return Strip(
        low=place(interval.low),
        estimate=place(interval.estimate),
        high=place(interval.high),
        zero=place(0.0),
        band=(place(-margin), place(margin)),
        no_effect=f"±{margin:g} {verdict.units}".strip(),
        better="left" if verdict.lower_is_better else "right",
        label=f"{signed(interval.estimate)}, interval {signed(interval.low)} to "
        f"{signed(interval.high)}; no effect is within {margin:g} of zero",
    )
