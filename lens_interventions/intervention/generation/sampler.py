"""How to choose the next token and when to stop: transformers' rules, applied to each text alone.

The processors and criteria of transformers expect batches of equal length, which left padding
makes, and some of them count the padding. Here they see each text without padding, in sets of texts
of equal length, so a text is treated as if it were alone.
"""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsFloat, SupportsIndex

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    EosTokenCriteria,
    LogitsProcessor,
    LogitsProcessorList,
    PrefixConstrainedLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
    SynthIDTextWatermarkLogitsProcessor,
    TemperatureLogitsWarper,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
)

from ..._counter_random import random_uniform
from ...drawing.labels import counted
from ...model.argument_types import python_numbers
from ...model.precision import as_double, at_least_float32
from ..known_text import KnownText
from .layer_contrast import BoundContrast, LayerContrast

# Keeps the draws of sampling apart from those of the patches' random sources.
_STREAM = 0x5A3B_11E6

# Processors that run the model themselves, or depend on a row's number in its batch.
_UNFIT: dict[type[LogitsProcessor], str] = {
    UnbatchedClassifierFreeGuidanceLogitsProcessor: "guidance_scale",
    PrefixConstrainedLogitsProcessor: "prefix_allowed_tokens_fn",
    EncoderNoRepeatNGramLogitsProcessor: "encoder_no_repeat_ngram_size",
    EncoderRepetitionPenaltyLogitsProcessor: "encoder_repetition_penalty",
    SynthIDTextWatermarkLogitsProcessor: "a SynthID watermark",
}

_NOTHING_LEFT = (
    "the temperature or the logits processors leave a text without any token to choose: every "
    "score is -inf, or one is not a number"
)


@dataclass(frozen=True)
class Sampler:
    """The rule by which the next token is chosen.

    Attributes:
        contrast: applied to the model's own logits, before anything else, if there is one.
        processors: applied to the logits, in order.
        do_sample: draw from the distribution that results, instead of its likeliest token.
        seeds: `[text]`, one for each text. A draw is a function of the seed and the position, so it
            does not depend on the batch, and a text that is continued later goes on as before.
    """

    contrast: BoundContrast | None
    processors: LogitsProcessorList
    do_sample: bool
    seeds: Int[Tensor, " text"]

    @property
    def reads(self) -> tuple[str, ...]:
        """Labels of the residual points without which `scores` cannot be computed."""
        return () if self.contrast is None else self.contrast.labels

    def scores(
        self,
        text: KnownText,
        logits: Float[Tensor, "batch d_vocab"],
        residuals: Mapping[str, Float[Tensor, "batch d_model"]],
    ) -> Float[Tensor, "batch d_vocab"]:
        """The logits after the processors, in float32 at least, as transformers computes them.

        `residuals` has those at the points that it `reads`, at the positions of the logits.
        """
        scores = logits.to(at_least_float32(logits.dtype))
        if self.contrast is not None:
            scores = self.contrast(scores, residuals)
        if not self.processors:
            return scores
        return by_length(text, lambda ids, rows: self._processed(ids, scores[rows]))

    def _processed(
        self, ids: Int[Tensor, "row pos"], scores: Float[Tensor, "row d_vocab"]
    ) -> Float[Tensor, "row d_vocab"]:
        expected = scores.shape
        process: Any
        for process in self.processors:
            scores = process(ids, scores)
            if not isinstance(scores, Tensor) or scores.shape != expected:
                is_tensor = isinstance(scores, Tensor)
                found = f"shape {tuple(scores.shape)}" if is_tensor else f"{scores!r:.60}"
                raise ValueError(
                    f"a logits processor must return scores of shape {tuple(expected)}; "
                    f"{type(process).__name__} returned {found}"
                )
        return scores

    def choose(
        self, text: KnownText, scores: Float[Tensor, "batch d_vocab"], rows: Int[Tensor, " batch"]
    ) -> Int[Tensor, " batch"]:
        """The next token of each text; `rows` are the texts' places among the seeds.

        Raises `ValueError` if the processors left nothing to choose from, or a score that is NaN.
        """
        # Without processors, a device need not wait for an answer here: `generate` asks whether the
        # log-probabilities are numbers.
        changed = self.contrast is not None or self.processors
        if not self.do_sample:
            likeliest = scores.argmax(-1)
            if changed and not (scores.gather(-1, likeliest[:, None]) > -torch.inf).all():
                raise ValueError(_NOTHING_LEFT)
            return likeliest
        cumulative = as_double(scores).softmax(-1).cumsum(-1)
        total = cumulative[:, -1:]
        if changed and not total.isfinite().all():
            raise ValueError(_NOTHING_LEFT)
        uniform = random_uniform(_STREAM, self.seeds[rows].cpu(), text.length.cpu())
        # The draw is above 0, so the first token whose sum reaches it has a probability above 0.
        threshold = uniform.to(total.device)[:, None] * total
        chosen = torch.searchsorted(cumulative, threshold)[:, 0]
        # If the scores are NaN, no token reaches the threshold.
        return chosen.clamp(max=scores.shape[-1] - 1).to(scores.device)


def make_sampler(
    bridge: TransformerBridge,
    *,
    do_sample: bool,
    temperature: float,
    processors: Iterable[LogitsProcessor] | None,
    seeds: Int[Tensor, " text"],
) -> Sampler:
    """A sampler; a layer contrast comes first, and the temperature before the other processors.

    Raises `ValueError` if the temperature is not above 0, or is set without sampling, or there are
    several contrasts; `TypeError` for a temperature that is not a number, or anything but a list of
    processors; `NotImplementedError` for a processor that cannot be applied to each text alone.
    """
    given = _listed("logits_processor", processors, LogitsProcessor)
    if not isinstance(temperature, SupportsFloat):
        raise TypeError(f"temperature must be a number, got {temperature!r:.60}")
    if not temperature > 0:
        raise ValueError(
            f"temperature must be above 0, got {temperature}; greedy is do_sample=False"
        )
    if temperature != 1 and not do_sample:
        raise ValueError(f"temperature={temperature} changes nothing unless do_sample=True")
    warm = [TemperatureLogitsWarper(float(temperature))] if temperature != 1 else []
    if unfit := unfit_processors(given):
        raise NotImplementedError(
            f"{unfit[0]} needs all rows of a batch at once, or the model: leave it out"
        )
    contrasts = [item for item in given if isinstance(item, LayerContrast)]
    if len(contrasts) > 1:
        raise ValueError(
            f"{' and '.join(map(str, contrasts))} each replace the model's own logits: give one"
        )
    others = [item for item in given if not isinstance(item, LayerContrast)]
    return Sampler(
        contrasts[0].bind(bridge) if contrasts else None,
        LogitsProcessorList([*warm, *others]),
        do_sample,
        seeds,
    )


def unfit_processors(processors: Iterable[LogitsProcessor]) -> list[str]:
    """The options of transformers whose processors cannot be applied to each text alone."""
    found = []
    for item in processors:
        found += [option for kind, option in _UNFIT.items() if isinstance(item, kind)]
        if isinstance(getattr(item, "prompt_ignore_length", None), Tensor):
            found.append("a prompt_ignore_length of each row")
    return found


def prompt_seeds(
    seed: SupportsIndex | Sequence[int] | Int[Tensor, " _"], n_prompts: int
) -> Int[Tensor, " prompt"]:
    """`seed + i` for prompt i, or the given seeds, one for each prompt.

    Seeds of any size count modulo 2**64. Raises `ValueError` if the number of seeds is not that of
    the prompts, and `TypeError` if they are not integers.
    """
    seed = python_numbers(seed)
    if isinstance(seed, SupportsIndex):
        return torch.arange(n_prompts) + _in_int64(seed)
    if not isinstance(seed, Sequence) or isinstance(seed, str):
        raise TypeError(f"seed must be one integer, or one for each prompt; got {seed!r:.60}")
    if len(seed) != n_prompts:
        raise ValueError(
            f"{counted(len(seed), 'seed')} for {counted(n_prompts, 'prompt')}: give one int, or "
            "one each"
        )
    return torch.tensor([_in_int64(each) for each in seed])


def _in_int64(number: SupportsIndex) -> int:
    return (operator.index(number) + 2**63) % 2**64 - 2**63


def stop_criteria(
    bridge: TransformerBridge, criteria: Iterable[StoppingCriteria] | None, *, stop_at_eos: bool
) -> StoppingCriteriaList:
    """The given criteria, and a stop at the end-of-text tokens that model or tokenizer name.

    Raises `TypeError` for anything but a list of criteria.
    """
    given = _listed("stopping_criteria", criteria, StoppingCriteria)
    config = getattr(bridge.original_model, "generation_config", None)
    ids = getattr(config, "eos_token_id", None)
    if ids is None:
        ids = getattr(bridge.tokenizer, "eos_token_id", None)
    at_eos = [EosTokenCriteria(ids)] if stop_at_eos and ids is not None else []
    return StoppingCriteriaList([*at_eos, *given])


def _listed(name: str, given: object, kind: type) -> list[Any]:
    if isinstance(given, kind):
        raise TypeError(f"{name} is one {type(given).__name__}: put it in a list")
    if not (given is None or isinstance(given, Iterable)):
        raise TypeError(f"{name} must be a list of {kind.__name__} objects, got {given!r:.60}")
    listed = list(given or [])
    if wrong := [each for each in listed if not callable(each) or isinstance(each, type)]:
        raise TypeError(
            f"{name} must be a list of {kind.__name__} objects; {wrong[0]!r:.60} is not one"
        )
    return listed


def has_ended(
    criteria: StoppingCriteriaList, text: KnownText, scores: Float[Tensor, "batch d_vocab"]
) -> Bool[Tensor, " batch"]:
    """Which texts some criterion ends at their last token.

    Raises `ValueError` for a criterion that returns neither one bool nor one for each text.
    """
    if not criteria:
        return torch.zeros_like(text.first, dtype=torch.bool)

    def ended(ids: Int[Tensor, "row pos"], rows: Int[Tensor, " row"]) -> Bool[Tensor, " row"]:
        found = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        own = scores[rows]
        for criterion in criteria:
            found |= _judged(criterion, ids, own)
        return found

    return by_length(text, ended)


def _judged(
    criterion: Any, ids: Int[Tensor, "row pos"], scores: Float[Tensor, "row d_vocab"]
) -> Bool[Tensor, "*row"]:
    found = criterion(ids, scores)
    verdicts = torch.as_tensor(found) if isinstance(found, bool | np.bool_) else found
    is_tensor = isinstance(verdicts, Tensor)
    if not is_tensor or verdicts.dtype != torch.bool or verdicts.shape not in ((), (len(ids),)):
        given = f"{found!r:.60}"
        if is_tensor:
            given = f"{verdicts.dtype} of shape {tuple(verdicts.shape)}"
        raise ValueError(
            f"a stopping criterion must return a bool, or one for each of the {len(ids)} rows of "
            f"input_ids, which are the texts of one length; got {given}"
        )
    return verdicts.to(ids.device)


def by_length(
    text: KnownText, function: Callable[[Tensor, Tensor], Tensor]
) -> Shaped[Tensor, "batch ..."]:
    """A function of (unpadded ids, their rows), applied to all texts of a length at a time."""
    results: list[Tensor] = []
    order = []
    for first in text.first.unique().tolist():
        rows = (text.first == first).nonzero()[:, 0]
        order.append(rows)
        results.append(function(text.tokens[rows, first:], rows))
    return torch.cat(results)[torch.cat(order).argsort()]
