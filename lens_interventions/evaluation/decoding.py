"""The harness's options for continuing a text, in the terms of `generate`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import StoppingCriteria

from ..intervention.generation.processors import GREEDY_TOO, PROCESSORS, sampling
from ..intervention.generation.result import GenerationStep


@dataclass(frozen=True)
class Decoding:
    """The options of a request to generate.

    Attributes:
        until: texts that end a continuation and are not part of it.
        max_new_tokens: how many tokens a continuation has at most.
        temperature: the temperature of sampling, 0 to take the likeliest token.
        numbers: those of other processors by name.
    """

    until: tuple[str, ...]
    max_new_tokens: int
    temperature: float
    numbers: tuple[tuple[str, float], ...]

    @classmethod
    def from_request(cls, options: Mapping[str, Any]) -> "Decoding":
        """Decoding for options that lm_eval's `normalize_gen_kwargs` has returned.

        Raises `NotImplementedError` for an option that `generate` does not know, `ValueError` for
        sampling at temperature 0. Other numbers are checked by `sampling`.
        """
        known = {"until", "max_gen_toks", "do_sample", *PROCESSORS}
        if unknown := sorted(set(options) - known):
            raise NotImplementedError(
                f"a task asks for {', '.join(unknown)} in its generation_kwargs; a patched model "
                f"knows {', '.join(sorted(known))}"
            )
        do_sample, temperature = bool(options["do_sample"]), float(options.get("temperature", 1.0))
        if do_sample and temperature <= 0:
            raise ValueError(
                f"a task asks to sample at a temperature of {temperature}: temperatures are above "
                "0, and greedy decoding is do_sample=False"
            )
        names = set(PROCESSORS) - {"temperature"} if do_sample else GREEDY_TOO
        return cls(
            until=tuple(text for text in options["until"] if text),
            max_new_tokens=options["max_gen_toks"],
            temperature=temperature if do_sample else 0.0,
            numbers=tuple(
                (name, options[name]) for name in sorted(names) if options.get(name) is not None
            ),
        )

    def sampling(self) -> dict[str, Any]:
        """The options of `generate`; raises `ValueError` for a number that is out of range."""
        return sampling(self.temperature, dict(self.numbers))


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
