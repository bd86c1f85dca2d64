"""The loss under a patch, predicted from a slope and a curvature."""

import math
from dataclasses import dataclass

from ...measures.intervals import Interval


@dataclass(frozen=True)
class SlopePrediction:
    """The loss under a patch as a parabola in its strength, in nats per predicted token.

    Attributes:
        strength: the patch's strength.
        slope: d(loss)/d(strength) at strength 0.
        curvature: the second derivative there, None where it was not measured.
    """

    strength: float
    slope: Interval
    curvature: Interval | None

    @property
    def change(self) -> float:
        """The predicted change of the loss, nats per token; linear if there is no curvature."""
        bend = 0.0 if self.curvature is None else self.curvature.estimate
        return self.slope.estimate * self.strength + bend * self.strength**2 / 2

    @property
    def best_strength(self) -> float:
        """The strength at which the parabola is lowest, `-slope / curvature`; it may be negative.

        nan if the curvature is unknown or not above 0, since the parabola then has no minimum.
        """
        if self.curvature is None or not self.curvature.estimate > 0:
            return math.nan
        return -self.slope.estimate / self.curvature.estimate

    @property
    def gain(self) -> float:
        """By how much the loss falls at that strength, `slope**2 / (2 curvature)`, nats per token.

        If the slope is uncertain, its square is too large on average, by the slope's variance.
        """
        return -self.best_strength * self.slope.estimate / 2
