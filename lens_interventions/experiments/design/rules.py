"""How the next token is chosen: greedily, at a temperature, or by one of transformers' rules."""

from dataclasses import asdict, dataclass
from typing import Any

from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)


@dataclass(frozen=True)
class Rule:
    """A sampling rule; by default greedy decoding.

    Attributes:
        sample: draw from the distribution, or take the likeliest token.
        temperature, top_p, min_p, repetition_penalty: applied by transformers' own processors; at
            their defaults they do nothing. The penalty counts the prompt's tokens too.
    """

    sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __str__(self) -> str:
        said = [f"repetition penalty {self.repetition_penalty:g}"] * (self.repetition_penalty != 1)
        said += [f"top-p {self.top_p:g}"] * (self.top_p < 1)
        said += [f"min-p {self.min_p:g}"] * (self.min_p > 0)
        if self.sample and (self.temperature != 1 or not said):
            said.insert(0, f"temperature {self.temperature:g}")
        return ", ".join(said) or "greedy"

    @property
    def family(self) -> str:
        """What varies between the rules of one frontier."""
        if self.repetition_penalty != 1:
            return "repetition penalty"
        if self.top_p < 1:
            return "top-p"
        if self.min_p > 0:
            return "min-p"
        return "temperature" if self.sample else "greedy"

    def columns(self) -> dict[str, Any]:
        """As parameters of a unit: `Rule(**columns)`."""
        return asdict(self)

    def processors(self) -> LogitsProcessorList:
        """The processors, in the order in which transformers' `generate` applies them."""
        found = LogitsProcessorList()
        if self.repetition_penalty != 1:
            found.append(RepetitionPenaltyLogitsProcessor(self.repetition_penalty))
        if self.temperature != 1:
            found.append(TemperatureLogitsWarper(self.temperature))
        if self.top_p < 1:
            found.append(TopPLogitsWarper(self.top_p))
        if self.min_p > 0:
            found.append(MinPLogitsWarper(self.min_p))
        return found


GREEDY = Rule()
