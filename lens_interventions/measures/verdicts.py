"""A verdict from a number and its interval, by rules stated beforehand."""

from dataclasses import dataclass
from typing import Literal

from .intervals import Interval

Outcome = Literal["helps", "hurts", "no effect", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """What an interval says about a question.

    Attributes:
        outcome: "helps", "hurts", "no effect" (none larger than `smallest_effect`) or "undecided".
        interval: of the true source minus the best control, paired; or of what else is asked about.
        smallest_effect: the smallest difference worth talking about, in the interval's units.
        lower_is_better: True for a loss or a loop rate, False for an accuracy or a log-prob.
        units: of the numbers, such as "nats"; for reading only.
    """

    outcome: Outcome
    interval: Interval
    smallest_effect: float
    lower_is_better: bool
    units: str = ""

    @property
    def words(self) -> str:
        """The outcome with the size of effect that it is about."""
        margin = f"{self.smallest_effect:g} {self.units}".strip()
        return {
            "helps": "helps",
            "hurts": "hurts",
            "no effect": f"no effect larger than {margin}",
            "undecided": f"undecided: cannot tell no effect from one of {margin} or more",
        }[self.outcome]

    def __str__(self) -> str:
        return f"{self.words}: {self.interval}" + (f", {self.units}" if self.units else "")


def verdict(
    interval: Interval, *, smallest_effect: float, lower_is_better: bool, units: str = ""
) -> Verdict:
    """Judge the interval of "true source minus best control".

    In this order, with m = `smallest_effect`:

    1. **no effect** (larger than m): the whole interval lies strictly between -m and m, even if it
       leaves out zero.
    2. **helps**: the whole interval lies on the better side of zero.
    3. **hurts**: the whole interval lies on the worse side of zero.
    4. **undecided**: otherwise. The interval covers zero and reaches m or beyond, or there is none.

    Rule 1 is the equivalence test of two one-sided tests (Schuirmann 1987), at error
    (1 - level) / 2 each side. m is chosen before the numbers are seen. So is the control: choosing
    the best one on the data that are reported makes the true source look worse than it is.

    The better side is below zero where `lower_is_better`. `units` are of the numbers, for reading.

    Raises `ValueError` unless `smallest_effect` is positive.
    """
    if not smallest_effect > 0:
        raise ValueError(f"smallest_effect must be positive, got {smallest_effect}")
    low, high = interval.low, interval.high
    if lower_is_better:
        low, high = -high, -low
    outcome: Outcome = "undecided"
    if -smallest_effect < low and high < smallest_effect:
        outcome = "no effect"
    elif low > 0:
        outcome = "helps"
    elif high < 0:
        outcome = "hurts"
    return Verdict(outcome, interval, smallest_effect, lower_is_better, units)
