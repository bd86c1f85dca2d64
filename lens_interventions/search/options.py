"""Options of a search for a sequence."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How a sequence is searched, beyond what `search_sequence` is told.

    Attributes:
        restarts: searches that run side by side from different beginnings.
        relaxed_share: the share of the budget that goes to the ascent on distributions; the rest
            goes to swaps of real tokens.
        learning_rate: of the ascent: Adam's, or the step of the exponentiated gradient. None takes
            the method's own.
        entropy: weight of the distributions' entropy when the ascent begins, in nats of the
            objective per nat; it falls to 0 in a straight line.
        temperature: of Gumbel's distribution when the ascent begins; it falls to a tenth.
        noise: standard deviation of the scores at the beginning.
        start_score: score of the tokens of `start` at the beginning, above all others.
        candidates: swaps that are tried together for each restart.
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
        for name in ("restarts", "candidates"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.relaxed_share <= 1:
            raise ValueError(f"relaxed_share must be from 0 to 1, got {self.relaxed_share}")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
        if not (self.temperature > 0 and self.entropy >= 0 and self.noise >= 0):
            raise ValueError(
                "temperature must be above 0, entropy and noise not below; got "
                f"{self.temperature}, {self.entropy} and {self.noise}"
            )
