"""Rules that choose the next token: greedy, at a temperature, by a contrast of layers, cut off."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from transformers import LogitsProcessorList

from ...intervention.generation.layer_contrast import SLED, DoLa, LayerContrast
from ...intervention.generation.processors import PROCESSORS, processors

CONTRASTS: Mapping[str, LayerContrast] = {
    "DoLa against lower layers": DoLa("low"),
    "DoLa against upper layers": DoLa("high"),
    "SLED": SLED(),
}
"""Layer contrasts by the name that a rule and its figures give them."""


@dataclass(frozen=True)
class Rule:
    """A sampling rule; by default greedy decoding.

    Attributes:
        sample: whether to draw from the distribution or take the likeliest token.
        temperature, top_p, min_p, repetition_penalty: applied by transformers' own processors; at
            their defaults they do nothing. The penalty counts the prompt's tokens too.
        layer_contrast: a name of `CONTRASTS`, applied before all these; by default none.
    """

    sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    layer_contrast: str = ""

    def __post_init__(self) -> None:
        if self.layer_contrast and self.layer_contrast not in CONTRASTS:
            raise ValueError(
                f"unknown layer contrast {self.layer_contrast!r}; there are {', '.join(CONTRASTS)}"
            )
        if min(self.temperature, self.repetition_penalty) <= 0:
            raise ValueError(
                "temperatures and penalties must be above 0, got "
                f"{self.temperature} and {self.repetition_penalty}"
            )
        if not (0 < self.top_p <= 1 and 0 <= self.min_p <= 1):
            raise ValueError(
                f"top_p and min_p are shares from 0 to 1, got {self.top_p} and {self.min_p}"
            )

    def __str__(self) -> str:
        said = [self.layer_contrast] * bool(self.layer_contrast)
        said += [f"repetition penalty {self.repetition_penalty:g}"] * (self.repetition_penalty != 1)
        # These two sample by definition, so temperature 1 need not be mentioned.
        cut = [f"top-p {self.top_p:g}"] * (self.top_p < 1)
        cut += [f"min-p {self.min_p:g}"] * (self.min_p > 0)
        said += cut
        if self.sample and (self.temperature != 1 or not cut):
            said.insert(0, f"temperature {self.temperature:g}")
        return ", ".join(said) or "greedy"

    @property
    def family(self) -> str:
        """The name of the value that varies between the rules of one frontier."""
        if self.layer_contrast:
            return self.layer_contrast.split()[0]
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

    @property
    def contrast(self) -> LayerContrast | None:
        """The layer contrast, if there is one."""
        return CONTRASTS.get(self.layer_contrast)

    def processors(self) -> LogitsProcessorList:
        """The processors after the contrast, in the order of transformers' `generate`."""
        numbers = {name: number for name, number in vars(self).items() if name in PROCESSORS}
        return LogitsProcessorList(processors(numbers))


GREEDY = Rule()
