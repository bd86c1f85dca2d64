"""Verdicts from numbers and their intervals, by rules fixed beforehand.

`verdict` judges one comparison. `joint_verdict` judges a source against several references at once:
it helps only if it is ahead of them all, and hurts only if it is behind no patch.

With m the smallest effect worth talking about, and all numbers turned so that more is better:

1. **helps**: the interval lies above 0, the p-value holds, and the estimate is m or more;
   **helps a little**: the same with an estimate below m.
2. **hurts**, **hurts a little**: the mirror image.
3. **no effect** (as large as m): none of these, and the interval lies strictly between -m and m,
   after it was widened for a small number of sequences (`outermost`).
4. **undecided**: otherwise. The interval reaches from 0 to m or beyond, or there is none.

More data sharpen a verdict. "No effect" may become "a little", which is just as small, but an
interval that shrinks around an effect never turns "helps" into "no effect". Rule 3 is the
equivalence test by two one-sided tests (Schuirmann 1987), at error (1 - level) / 2 on each side. m
is chosen before the numbers are seen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from scipy import stats

from .intervals import Interval

JOINT = "no patch and every control"
"""What a joint comparison subtracts."""

# In the names of methods. A max-t bootstrap has been widened already.
_BOOTSTRAPS = ("BCa", "percentile")

Outcome = Literal["helps", "helps a little", "no effect", "hurts a little", "hurts", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """The answer of an interval to a question.

    Attributes:
        outcome: the outcome by the rules of `lens_interventions.measures.verdicts`.
        interval: the interval that was judged.
        smallest_effect: the smallest difference worth talking about, in the interval's units.
        lower_is_better: True for a loss or a loop rate, False for an accuracy or a log-prob.
        units: the units of the numbers, such as "nats"; for readers only.
        smallest_visible: the smallest effect that had a good chance of being seen, as computed by
            the function `smallest_visible`; None if it is not known.
        p_value: the p-value that was judged, corrected if several questions were asked; None if
            there was none.
        against: in words, the reference that the interval is a difference from; empty for other
            quantities.
        not_ahead_of: controls that the source did not beat, although it beat no patch.
    """

    outcome: Outcome
    interval: Interval
    smallest_effect: float
    lower_is_better: bool
    units: str = ""
    smallest_visible: float | None = None
    p_value: float | None = None
    against: str = ""
    not_ahead_of: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The outcome with the size of the effect that it is about."""
        if self.interval.n == 0:
            return "undecided: nothing was measured"
        margin = f"{self.smallest_effect:g} {self.units}".strip()
        said = {
            "helps": "helps",
            "helps a little": f"helps a little (estimate below {margin})",
            "no effect": f"no effect larger than {margin}",
            "hurts a little": f"hurts a little (estimate below {margin})",
            "hurts": "hurts",
            "undecided": f"undecided: cannot tell no effect from one of {margin} or more",
        }[self.outcome]
        if self.outcome == "no effect" and self.against == JOINT:
            said = f"no effect (no lead of {margin} or more, and no such harm)"
        if self.outcome == "undecided":
            _, lead = outermost(_gain(self.interval, self.lower_is_better))
            if self.against == JOINT and lead < self.smallest_effect:
                said = f"undecided: no lead of {margin} or more, but such harm is not ruled out"
            elif self.interval.low * self.interval.high > 0 and self._p_is_too_large:
                said = f"undecided: p = {self.p_value:.2g}"
        if self.outcome == "undecided" and self.smallest_visible is not None:
            visible = f"{self.smallest_visible:.2g} {self.units}".strip()
            said += f" (a single test had 80% power for {visible})"
        if self.not_ahead_of:
            said += f"; ahead of no patch, but not of: {'; '.join(self.not_ahead_of)}"
        return said

    @property
    def _p_is_too_large(self) -> bool:
        return self.p_value is not None and not is_at_level(self.p_value, self.interval.level)

    def __str__(self) -> str:
        number = f"{self.words}: {self.interval}" + (f", {self.units}" if self.units else "")
        number += f", against {self.against}" if self.against else ""
        return f"{number}; {'below' if self.lower_is_better else 'above'} 0 helps"


def verdict(
    interval: Interval,
    *,
    smallest_effect: float,
    lower_is_better: bool,
    units: str = "",
    p_value: float | None = None,
    smallest_visible: float | None = None,
) -> Verdict:
    """Judge the interval of a difference, a correlation or a slope.

    **Arguments:**

    - `smallest_effect`: m of the rules.
    - `lower_is_better`: whether the better side is below zero.
    - `units`: the units of the numbers, for readers.
    - `p_value`: two-sided, corrected if several questions are asked. "Helps" and "hurts" need a
        p-value of at most 1 - level. Without one, the interval alone decides.
    - `smallest_visible`: the smallest visible effect, for readers.

    Raises `ValueError` unless `smallest_effect` is positive.
    """
    gain = _gain(interval, lower_is_better)
    outcome = _direction(gain, p_value, smallest_effect)
    low, high = outermost(gain)
    if outcome == "undecided" and -smallest_effect < low and high < smallest_effect:
        outcome = "no effect"
    return Verdict(
        outcome, interval, smallest_effect, lower_is_better, units, smallest_visible, p_value
    )


def joint_verdict(
    joint: Interval,
    unpatched: Interval,
    *,
    smallest_effect: float,
    lower_is_better: bool,
    p_joint: float,
    p_unpatched: float,
    units: str = "",
    smallest_visible: float | None = None,
    not_ahead_of: Sequence[str] = (),
) -> Verdict:
    """Judge a source against no patch and every control together.

    It **helps** (a little) if it is ahead of all of them: each comparison is tested at the full
    level, which needs no correction (the intersection-union test, Berger 1982). It **hurts** (a
    little) if it is behind no patch; a control that does better is not harm. It has **no effect**
    if its lead over all of them is below m, and so is its harm compared with no patch.

    **Arguments:**

    - `joint`: the result of `joint_interval`.
    - `unpatched`: the interval of the source minus no patch.
    - `smallest_effect`, `lower_is_better`, `units`, `smallest_visible`: those of `verdict`.
    - `p_joint`: the largest p-value over the references, corrected over the questions that are
        asked together; `p_unpatched`: the p-value against no patch, corrected likewise.
    - `not_ahead_of`: names of the controls that the source does not beat. The verdict keeps them if
        the source is ahead of no patch.

    Raises `ValueError` unless `smallest_effect` is positive.
    """
    lead, change = _gain(joint, lower_is_better), _gain(unpatched, lower_is_better)
    ahead = _direction(lead, p_joint, smallest_effect)
    plain = _direction(change, p_unpatched, smallest_effect)
    is_ahead, beats_unpatched = (found in ("helps", "helps a little") for found in (ahead, plain))
    interval, p_value, against = joint, p_joint, JOINT
    outcome: Outcome = "undecided"
    if is_ahead:
        outcome = ahead
    elif plain in ("hurts", "hurts a little"):
        outcome, interval, p_value, against = plain, unpatched, p_unpatched, "no patch"
    elif outermost(change)[0] > -smallest_effect and outermost(lead)[1] < smallest_effect:
        outcome = "no effect"
    return Verdict(
        outcome,
        interval,
        smallest_effect,
        lower_is_better,
        units,
        smallest_visible,
        p_value,
        against,
        tuple(not_ahead_of) if beats_unpatched and not is_ahead else (),
    )


def joint_interval(
    intervals: Sequence[Interval], wider: Sequence[Interval], *, lower_is_better: bool
) -> Interval:
    """Interval of a source's lead over the best of several references.

    The lead is the smallest of its differences, turned so that more is better. It is above the
    smallest of the lower ends with the confidence of each single interval, because one of the
    differences is the smallest. It is below the smallest of the upper ends only if all upper ends
    hold together, so these are taken from wider intervals.

    **Arguments:**

    - `intervals`: the intervals of the source minus each reference.
    - `wider`: the same intervals at confidence 1 - (1 - level) / k for k references (Bonferroni).
    - `lower_is_better`: whether the better side of a difference is below zero.

    **Returns:** the interval in the units and sign of `intervals`. It has no ends (`method` "none")
    if one of them has none.

    Raises `ValueError` if there are no intervals, or not as many wider ones.
    """
    if not intervals or len(intervals) != len(wider):
        raise ValueError(
            "joint_interval needs an interval and a wider one for each reference, and at least one "
            f"reference; got {len(intervals)} intervals and {len(wider)} wider ones"
        )
    gains = [_gain(interval, lower_is_better) for interval in intervals]
    estimate = min(gain.estimate for gain in gains)
    low = min(gain.low for gain in gains)
    high = min(_gain(interval, lower_is_better).high for interval in wider)
    n = min(gain.n for gain in gains)
    method = f"joint {'/'.join(dict.fromkeys(gain.method for gain in gains))}"
    if any(math.isnan(gain.low) for gain in gains):
        low = high = math.nan
        method = "none"
    return _gain(Interval(estimate, low, high, gains[0].level, method, n), lower_is_better)


def smallest_visible(standard_error: float, *, level: float = 0.95) -> float:
    """The effect that a two-sided test at `1 - level` sees with a probability of 80%.

    It uses the normal approximation; at the default level it is 2.8 times the `standard_error` of
    the estimate.

    Raises `ValueError` if `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    return float(stats.norm.isf((1 - level) / 2) + stats.norm.ppf(0.8)) * standard_error


def visible_by_width(interval: Interval) -> float | None:
    """`smallest_visible` for the standard error of a normal estimate with this `interval`.

    None if the interval has no width or no ends.
    """
    error = (interval.high - interval.low) / (2 * stats.norm.isf((1 - interval.level) / 2))
    return smallest_visible(float(error), level=interval.level) if error > 0 else None


def _gain(interval: Interval, lower_is_better: bool) -> Interval:
    """The interval turned so that more is better; turning twice gives it back."""
    if not lower_is_better:
        return interval
    low, high = -interval.high, -interval.low
    return replace(interval, estimate=-interval.estimate, low=low, high=high)


def outermost(interval: Interval) -> tuple[float, float]:
    """The ends beyond which effects are ruled out.

    They are those of `interval`, unless it is a bootstrap or has no width. A bootstrap of n
    sequences takes their own spread for that of all, and a normal distribution for Student's t, so
    it is too narrow by the factor `t / z * sqrt(n / (n - 1))` (Hesterberg 2015, "What Teachers
    Should Know About the Bootstrap", on small samples). That is 1.05 for 40 sequences and 1.22 for
    10. An interval without a width says only that none of n sequences was another. So at most a
    share of `1 - miss^(1 / n)` of all are (Clopper and Pearson 1934), which is 0.1 for 36 of them;
    it counts each as an effect of 1.
    """
    n, miss = interval.n, (1 - interval.level) / 2
    if not interval.low <= interval.high:
        return -math.inf, math.inf
    if interval.low == interval.high:
        others = 1 - miss ** (1 / n)
        return interval.low - others, interval.high + others
    if not any(name in interval.method for name in _BOOTSTRAPS):
        return interval.low, interval.high
    factor = stats.t.isf(miss, n - 1) / stats.norm.isf(miss) * math.sqrt(n / (n - 1))
    low = interval.estimate - factor * (interval.estimate - interval.low)
    high = interval.estimate + factor * (interval.high - interval.estimate)
    # BCa may leave out its estimate, and would then be narrowed.
    return min(low, interval.low), max(high, interval.high)


def is_at_level(p_value: float, level: float) -> bool:
    """Whether a p-value is at most 1 - `level`, in which 1 - 0.9 is 0.1 whatever its last bit.

    **Arguments:**

    - `p_value`: of a test, 0 to 1.
    - `level`: of the interval beside it, such as 0.95.
    """
    return p_value <= 1 - level + 1e-12


def _direction(gain: Interval, p_value: float | None, smallest_effect: float) -> Outcome:
    """Rules 1 and 2: helps or hurts, or else undecided."""
    if not smallest_effect > 0:
        raise ValueError(f"smallest_effect must be positive, got {smallest_effect}")
    if p_value is not None and not is_at_level(p_value, gain.level):
        return "undecided"
    if gain.low > 0:
        return "helps" if gain.estimate >= smallest_effect else "helps a little"
    if gain.high < 0:
        return "hurts" if gain.estimate <= -smallest_effect else "hurts a little"
    return "undecided"
