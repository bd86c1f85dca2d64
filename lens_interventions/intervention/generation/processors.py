"""transformers' processors of scores, by the names that its `generate` gives their numbers."""

from collections.abc import Callable, Mapping
from typing import Any

from transformers import (
    LogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

PROCESSORS: Mapping[str, tuple[Callable[..., LogitsProcessor], float]] = {
    "repetition_penalty": (RepetitionPenaltyLogitsProcessor, 1),
    "temperature": (TemperatureLogitsWarper, 1),
    "top_k": (TopKLogitsWarper, 0),
    "top_p": (TopPLogitsWarper, 1),
    "min_p": (MinPLogitsWarper, 0),
}
"""Each processor and the number at which it does nothing, in the order of `generate`."""

GREEDY_TOO = frozenset({"repetition_penalty"})
"""The processors that change which token is the likeliest."""


def chosen(numbers: Mapping[str, float]) -> dict[str, float]:
    """Those of the numbers, by name, that do something, in the order of `PROCESSORS`."""
    return {
        name: numbers[name]
        for name, (_, plain) in PROCESSORS.items()
        if name in numbers and numbers[name] != plain
    }


def processors(numbers: Mapping[str, float]) -> list[LogitsProcessor]:
    """The processors for numbers by name; transformers raises `ValueError` for one out of range."""
    return [PROCESSORS[name][0](number) for name, number in chosen(numbers).items()]


def sampling(temperature: float, numbers: Mapping[str, float]) -> dict[str, Any]:
    """Options of `generate` for numbers by name, and a temperature that is 0 for greedy decoding.

    Raises `ValueError` for a number that is for sampling, at temperature 0, or is out of range.
    """
    if not temperature >= 0:
        raise ValueError(
            f"temperature must be 0, which takes the likeliest token, or above; got {temperature}"
        )
    if temperature:
        drawn = {"do_sample": True, "temperature": temperature}
        return {"logits_processor": processors(numbers), **drawn}
    if unused := sorted(set(chosen(numbers)) - GREEDY_TOO):
        raise ValueError(
            f"{' and '.join(unused)} would change nothing at temperature 0, which takes the "
            "likeliest token: set a temperature above 0"
        )
    return {"logits_processor": processors(numbers)}
