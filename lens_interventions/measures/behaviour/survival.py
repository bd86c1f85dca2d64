"""How long texts go on before they fall into a loop."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import CensoredData, ecdf

from ..._summary import summary
from .loops import MIN_LENGTH, Loop


@dataclass(frozen=True, eq=False)
class Survival:
    """Share of texts that have not entered a loop, over time.

    Attributes:
        time: `[time]`, 0, 1, ... tokens.
        share: `[time]`, the estimated share of texts whose loop, if any, begins after this token.
        low: `[time]`, lower end of the pointwise confidence interval; nan at shares of 0 and 1,
            where there is no interval.
        high: `[time]`, its upper end.
        at_risk: `[time]`, the number of texts that are observed and without a loop just before this
            token.
        level: the confidence of the interval.
    """

    time: Int[np.ndarray, " time"]
    share: Float[np.ndarray, " time"]
    low: Float[np.ndarray, " time"]
    high: Float[np.ndarray, " time"]
    at_risk: Int[np.ndarray, " time"]
    level: float

    __repr__ = summary


def loop_free_survival(
    loops: Sequence[Loop | None],
    lengths: Sequence[int],
    *,
    level: float = 0.95,
    min_length: int = MIN_LENGTH,
) -> Survival:
    """Kaplan-Meier estimate of the share of texts without a loop, from the loops in which they end.

    The event is the loop's `start`. A text that does not end in a loop is censored, because its
    continuation is unknown. It is censored `min_length` tokens before its end, because a loop that
    began later would not have been recognised; pass the `min_length` that `ending_loops` was given.

    A loop of period p is recognised only `min_rounds * p` tokens after it began. Where that is more
    than `min_length`, loops are missed that began in the last `min_rounds * p` tokens, and the
    share is overestimated there.

    `lengths` are the numbers of tokens of the texts. A text that stopped by itself is treated like
    one that was cut off; to count it as free of loops, give it the full budget of tokens as its
    length.

    Intervals at confidence `level` are those of `scipy.stats.ecdf`, pointwise, on the log(-log)
    scale, which keeps them between 0 and 1. They assume independent texts: take one sample per
    prompt.

    Raises `ValueError` if there are no texts, if the numbers of loops and lengths differ, if a
    length is below 0 or `min_length` below 1, or if a loop begins where this `min_length` could not
    have found it.
    """
    if not loops or len(loops) != len(lengths):
        raise ValueError(
            f"expected one length per text and at least one text, got {len(loops)} loops and "
            f"{len(lengths)} lengths"
        )
    if min(lengths) < 0 or min_length < 1:
        raise ValueError(
            f"expected lengths of at least 0 and min_length >= 1, got lengths from {min(lengths)} "
            f"and {min_length=}"
        )
    watched = np.maximum(np.asarray(lengths) - min_length, 0)
    looped = np.array([loop is not None for loop in loops])
    times = np.array(
        [until if loop is None else loop.start for loop, until in zip(loops, watched, strict=True)]
    )
    if (times > watched).any():
        late = int(np.argmax(times > watched))
        raise ValueError(
            f"text {late} of {lengths[late]} tokens has a loop from {times[late]}, shorter than "
            f"min_length={min_length}: pass the min_length that the loops were found with"
        )
    curve = ecdf(CensoredData(times[looped], right=times[~looped])).sf
    with warnings.catch_warnings():
        # The interval is undefined at shares of 0 and 1, which nan shows.
        warnings.filterwarnings("ignore", "The confidence interval is undefined", RuntimeWarning)
        interval = curve.confidence_interval(level, method="log-log")
    time = np.arange(int(watched.max()) + 1)
    share = curve.evaluate(time)
    # scipy calls the interval certain before the first observation, and undefined after it.
    uncertain = (share > 0) & (share < 1)
    return Survival(
        time=time,
        share=share,
        low=np.where(uncertain, interval.low.evaluate(time), np.nan),  # type: ignore[attr-defined]
        high=np.where(uncertain, interval.high.evaluate(time), np.nan),  # type: ignore[attr-defined]
        at_risk=(times >= time[:, None]).sum(-1),
        level=level,
    )
