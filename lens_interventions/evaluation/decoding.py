"""The harness's options for continuing a text, in the terms of `generate`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import (
    LogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ..intervention.generation.result import GenerationStep

_PROCESSORS: dict[str, type[LogitsProcessor]] = {
    "repetition_penalty": RepetitionPenaltyLogitsProcessor,
    "top_k": TopKLogitsWarper,
    "top_p": TopPLogitsWarper,
    "min_p": MinPLogitsWarper,
}
_GREEDY_TOO = {"repetition_penalty"}


@dataclass(frozen=True)
class Decoding:
    """The options of a request to generate.

    Attributes:
        until: texts that end a continuation and are not part of it.
        max_new_tokens: how many tokens a continuation has at most.
        do_sample: draw instead of taking the likeliest token.
        temperature: the temperature of sampling.
        rules: names of processors and their values, in the order of transformers.
    """

    until: tuple[str, ...]
    max_new_tokens: int
    do_sample: bool
    temperature: float
    rules: tuple[tuple[str, float], ...]

    @classmethod
    def from_request(cls, options: Mapping[str, Any]) -> "Decoding":
        """Decoding for options that lm_eval's `normalize_gen_kwargs` has returned.

        Raises `NotImplementedError` for an option that `generate` does not know.
        """
        known = {"until", "max_gen_toks", "do_sample", "temperature", *_PROCESSORS}
        if unknown := sorted(set(options) - known):
            raise NotImplementedError(
                f"a task asks for {', '.join(unknown)} in its generation_kwargs; a patched model "
                f"knows {', '.join(sorted(known))}"
            )
        do_sample = bool(options["do_sample"])
        rules = (
            (name, options[name])
            for name in _PROCESSORS
            # Zero leaves a rule out, as in transformers.
            if options.get(name) and (do_sample or name in _GREEDY_TOO)
        )
        return cls(
            until=tuple(text for text in options["until"] if text),
            max_new_tokens=options["max_gen_toks"],
            do_sample=do_sample,
            temperature=float(options.get("temperature", 1.0)) if do_sample else 1.0,
            rules=tuple(rules),
        )

    def processors(self) -> list[LogitsProcessor]:
        """The rules as processors of transformers."""
        kinds: dict[str, Any] = _PROCESSORS
        return [kinds[name](number) for name, number in self.rules]


class Until(StoppingCriteria):
    """Ends a row if its new tokens, and not its prompt, contain one of some texts."""

    def __init__(self, tokenizer: Any, texts: tuple[str, ...]) -> None:
        self._tokenizer, self._texts, self._n_new = tokenizer, texts, 1

    def next_step(self, step: GenerationStep) -> None:
        """A callback of `generate`: all rows have as many new tokens."""
        self._n_new = step.step + 2

    def __call__(
        self, input_ids: Int[Tensor, "batch pos"], _scores: Tensor, **_: Any
    ) -> Bool[Tensor, " batch"]:
        written = [self._tokenizer.decode(row) for row in input_ids[:, -self._n_new :].tolist()]
        ended = [any(text in said for text in self._texts) for said in written]
        return torch.tensor(ended, device=input_ids.device)
