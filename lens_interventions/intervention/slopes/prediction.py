"""What a slope and a curvature say of a patch."""

import math
from dataclasses import dataclass

from ...measures.intervals import Interval


@dataclass(frozen=True)
class SlopePrediction:
    """The loss under a patch as a parabola in its strength, in nats per predicted token.

    Attributes:
        strength: of the patch.
        slope: d(loss)/d(strength) at strength 0.
        curvature: the second derivative there, None where it was not measured.
    """

    strength: float
    slope: Interval
    curvature: Interval | None

    @property
    def change(self) -> float:
        """The predicted change of the loss at the patch's strength; without a curvature, linear."""
        bend = 0.0 if self.curvature is None else self.curvature.estimate
        return self.slope.estimate * self.strength + bend * self.strength**2 / 2

    @property
    def best_strength(self) -> float:
        """Where the parabola is lowest, `-slope / curvature`: below 0 to write the opposite.

        nan where the curvature is not known or not above 0: then a parabola says nothing.
        """
        if self.curvature is None or not self.curvature.estimate > 0:
            return math.nan
        return -self.slope.estimate / self.curvature.estimate

    @property
    def gain(self) -> float:
        """By how much the loss falls there, `slope**2 / (2 curvature)`.

        The square of a slope that is uncertain is too large on average, by its variance.
        """
        return -self.best_strength * self.slope.estimate / 2
