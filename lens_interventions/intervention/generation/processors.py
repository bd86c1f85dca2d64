"""transformers' processors of scores, by the names that its `generate` gives their numbers."""

from collections.abc import Mapping
from typing import Any

from transformers import (
    LogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

PROCESSORS: Mapping[str, type[LogitsProcessor]] = {
    "repetition_penalty": RepetitionPenaltyLogitsProcessor,
    "temperature": TemperatureLogitsWarper,
    "top_k": TopKLogitsWarper,
    "top_p": TopPLogitsWarper,
    "min_p": MinPLogitsWarper,
}
"""The processors in the order in which transformers' `generate` applies them."""

PLAIN: Mapping[str, float] = {
    "repetition_penalty": 1,
    "temperature": 1,
    "top_k": 0,
    "top_p": 1,
    "min_p": 0,
}
"""The numbers at which a processor does nothing."""

GREEDY_TOO = frozenset({"repetition_penalty"})
"""The processors that change which token is the likeliest."""


def chosen(numbers: Mapping[str, float]) -> dict[str, float]:
    """Those of the numbers, which have names of `PROCESSORS`, that do something, in its order."""
    return {
        name: numbers[name]
        for name, plain in PLAIN.items()
        if name in numbers and numbers[name] != plain
    }


def processors(numbers: Mapping[str, float]) -> list[LogitsProcessor]:
    """The processors for numbers by name; transformers raises `ValueError` for one out of range."""
    kinds: Mapping[str, Any] = PROCESSORS
    return [kinds[name](number) for name, number in chosen(numbers).items()]


def sampling(temperature: float, numbers: Mapping[str, float]) -> dict[str, Any]:
    """Options of `generate` for numbers by name, and a temperature that is 0 for greedy decoding.

    Raises `ValueError` for a number that is for sampling, at temperature 0, or is out of range.
    """
    if temperature:
        drawn = {"do_sample": True, "temperature": temperature}
        return {"logits_processor": processors(numbers), **drawn}
    if unused := sorted(set(chosen(numbers)) - GREEDY_TOO):
        raise ValueError(
            f"{' and '.join(unused)} would change nothing at temperature 0, which takes the "
            "likeliest token: set a temperature above 0"
        )
    return {"logits_processor": processors(numbers)}
