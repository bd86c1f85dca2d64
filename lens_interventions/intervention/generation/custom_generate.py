"""A patch as transformers' `model.generate(custom_generate=...)` takes it.

transformers reads the options and prepares prompts, processors and criteria; the tokens come from
`generate`. Options that `generate` would not honour are refused.
"""

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    Cache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteriaList,
)
from transformers.generation.configuration_utils import GenerationMode
from transformers.generation.utils import GenerateDecoderOnlyOutput

from ...model.exclusive import exclusive
from ..patch import NextTokenPatch, require_patch_or_none
from .generate import generate
from .sampler import unfit_processors

Written = Int[Tensor, "batch whole"] | GenerateDecoderOnlyOutput

# Arguments from transformers that change nothing here.
_PREPARED = {"use_cache", "logits_to_keep", "cache_position"}
# Options whose processors count the columns of the prompt, padding included.
_COUNT_COLUMNS = (
    "min_length",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "begin_suppress_tokens",
    "exponential_decay_length_penalty",
)
_RECORDS = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")


@exclusive
def as_custom_generate(
    bridge: TransformerBridge, patch: NextTokenPatch | None, *, seed: int = 0
) -> Callable[..., Written]:
    """The patch as a function for `bridge.original_model.generate(..., custom_generate=function)`.

    The tokens are those of `li.generate` with the same processors, row by row. Greedy decoding and
    sampling honour the generation config, `logits_processor`, `stopping_criteria` and
    `num_return_sequences`. As in `li.generate`, processors and criteria see prompts without
    padding. transformers puts the temperature after the processors given to it, where
    `li.generate(temperature=...)` puts it first, and samples from the 50 likeliest tokens unless
    `top_k` says otherwise. It does not pass on a `streamer`, which gets the prompt alone and is
    never ended, or an `assistant_model`, or the tokenizer that `stop_strings` need: give
    `stopping_criteria=[StopStringCriteria(tokenizer, strings)]` instead.

    **Arguments:**

    - `bridge`: the model; its hooks stay on.
    - `patch`: what to write while decoding; None is the model without a patch.
    - `seed`: row i is sampled with `seed + i`, in every call; torch's own seed has no effect.

    **Returns:** the function. Under `model.generate` it returns prompts and continuations,
    `[batch, whole]`, as transformers does; with `return_dict_in_generate=True` these are in a
    `GenerateDecoderOnlyOutput`.

    Raises `TypeError` if `patch` is a list. The function raises `NotImplementedError` for options
    that it does not support, such as beams, scores, a filled cache or embeddings instead of ids;
    `ValueError` under another model than the bridge's; and the errors of `li.generate`.
    """
    require_patch_or_none(patch)

    def patched(
        model: Any,
        input_ids: Int[Tensor, "batch pos"],
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        # If it were a named argument, transformers would pass it twice.
        **prepared: Any,
    ) -> Written:
        if model is not bridge.original_model:
            raise ValueError(
                f"the function was made for {bridge.cfg.model_name}, but runs under another "
                f"{type(model).__name__}: call bridge.original_model.generate of that bridge"
            )
        mask = prepared.pop("attention_mask", None)
        if mask is None:
            mask = torch.ones_like(input_ids)
        processors = [_of_unpadded_rows(each, mask) for each in logits_processor]
        refused = [
            *_refused_options(generation_config, padded=not bool(mask.all())),
            *unfit_processors(processors),
            *_refused_inputs(prepared, mask),
        ]
        if refused:
            raise NotImplementedError(
                f"a patch cannot be written under {', '.join(refused)}: leave it out"
            )
        written = generate(
            bridge,
            input_ids,
            patch,
            attention_mask=mask,
            max_new_tokens=int(generation_config.max_length) - input_ids.shape[1],
            do_sample=bool(generation_config.do_sample),
            logits_processor=processors,
            stopping_criteria=stopping_criteria,
            stop_at_eos=False,  # already among the criteria
            seed=seed,
        ).tokens.to(input_ids.device)
        if (written < 0).any():
            written = written.masked_fill(written < 0, _padding(generation_config))
        sequences = torch.cat([input_ids, written], dim=1)
        if generation_config.return_dict_in_generate:
            return GenerateDecoderOnlyOutput(sequences=cast(Any, sequences))
        return sequences

    return patched


def _refused_options(config: GenerationConfig, *, padded: bool) -> Iterator[str]:
    mode = config.get_generation_mode()
    if mode not in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE):
        yield mode.value.replace("_", " ")
    if config.return_dict_in_generate:
        yield from (f"{name}=True" for name in _RECORDS if getattr(config, name, None))
    if padded:
        for name in _COUNT_COLUMNS:
            value = getattr(config, name, None)
            # A least length of 0 asks for nothing, but token 0 can be forced.
            if value or (value == 0 and name.endswith("token_id")):
                # transformers makes the one of the other.
                given = name != "min_length" or config.min_new_tokens is None
                said = name if given else "min_new_tokens"
                yield f"{said} with prompts of different lengths"


def _of_unpadded_rows(processor: LogitsProcessor, mask: Int[Tensor, "batch pos"]) -> Any:
    """A penalty of repetitions that leaves out each row's padding, for rows that have none."""
    left_out = getattr(processor, "prompt_ignore_length", None)
    if type(processor) is not RepetitionPenaltyLogitsProcessor or not isinstance(left_out, Tensor):
        return processor
    padding = (mask != 0).int().argmax(dim=1)
    if not torch.equal(left_out.to(padding), padding):
        return processor
    return RepetitionPenaltyLogitsProcessor(processor.penalty)


def _refused_inputs(prepared: dict[str, Any], mask: Int[Tensor, "batch pos"]) -> Iterator[str]:
    if prepared.get("inputs_embeds") is not None:  # without ids, nothing else compares
        yield "inputs_embeds"
        return
    for name, value in prepared.items():
        if isinstance(value, Cache):
            if value.get_seq_length() > 0:
                yield f"a {name} that is filled already"
        elif name == "position_ids":
            counted = mask.cumsum(-1) - 1
            if ((value != counted) & mask.bool()).any():
                yield "position_ids of your own"
        elif name not in _PREPARED and value is not None:
            yield name


def _padding(config: GenerationConfig) -> int:
    """The token that transformers puts after the end of a row: pad, or else the end of text."""
    for token in (config.pad_token_id, config.eos_token_id):
        if token is not None:
            return int(token if isinstance(token, int) else token[0])
    raise ValueError(
        "rows end at different lengths, but the generation config names no token to fill them "
        "with: pass pad_token_id"
    )
