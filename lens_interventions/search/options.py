"""Options of a search for a sequence."""

import math
from dataclasses import dataclass

from ..model.argument_types import require_counts, require_numbers

_NUMBERS = ("relaxed_share", "learning_rate", "entropy", "temperature", "noise", "start_score")


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How a sequence is searched, beyond the arguments of `search_sequence`.

    Attributes:
        restarts: how many searches run in parallel from different starts.
        relaxed_share: the share of the budget that goes to the ascent on distributions; the rest
            goes to swaps of real tokens.
        learning_rate: the learning rate of the ascent: Adam's, or the step of the exponentiated
            gradient. None takes the method's default.
        entropy: weight of the distributions' entropy at the start of the ascent, in nats of the
            objective per nat; it falls linearly to 0.
        temperature: temperature of Gumbel's distribution at the start of the ascent; it falls to a
            tenth.
        noise: standard deviation of the scores at the start.
        start_score: by how much the scores of the tokens of `start` exceed all others at the start.
        candidates: how many swaps are tried together for each restart.
    """

    restarts: int = 4
    relaxed_share: float = 0.5
    learning_rate: float | None = None
    entropy: float = 0.3
    temperature: float = 1.0
    noise: float = 1.0
    start_score: float = 10.0
    candidates: int = 16

    def __post_init__(self) -> None:
        require_counts(restarts=self.restarts, candidates=self.candidates)
        for name in _NUMBERS:
            value = getattr(self, name)
            if value is None and name == "learning_rate":
                continue
            require_numbers(**{name: value})
            if not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, got {value}")
        if not 0 <= self.relaxed_share <= 1:
            raise ValueError(f"relaxed_share must be from 0 to 1, got {self.relaxed_share}")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
        if not (self.temperature > 0 and self.entropy >= 0 and self.noise >= 0):
            raise ValueError(
                "temperature must be above 0, entropy and noise at least 0; got "
                f"{self.temperature}, {self.entropy} and {self.noise}"
            )
