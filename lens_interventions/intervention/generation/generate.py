"""Sampling text under a patch, one token after the other."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import LogitsProcessor, StoppingCriteria, StoppingCriteriaList

from ..._progress import progress_bar, show_as_done, steps
from ...lens.distributions import log_probs_of
from ...model.argument_names import instead_of
from ...model.argument_types import require_counts, require_counts_or_none
from ...model.chat import Message, text_or_messages
from ...model.exclusive import exclusive
from ...model.fast_linears import Forwards, decoding_forwards
from ...model.padding import pad_token
from ...model.points import point_labels
from ...model.readout import readout, refuse_readout_hooks
from ...model.replaced_forwards import replaced_forwards
from ...model.tokens import TextOrTokens, TokenBatch, token_batch
from ...model.user_hooks import has_user_hooks
from ...model.vocabulary import token_strings
from ..bound_patch import BoundPatch
from ..known_text import KnownText, select_rows
from ..patch import (
    NextTokenPatch,
    bind_all,
    listed,
    refuse_hooks_of_patches,
    warn_if_out_of_reach,
)
from .decoder import Decoder, decoder
from .patch_batch import PatchBatch
from .read_steps import read_steps, try_options
from .result import Generation, GenerationStep
from .sampler import Sampler, has_ended, make_sampler, prompt_seeds, stop_criteria

# At most this many tokens of prompts go through the model at a time, and fewer of long prompts: a
# head scores at most this many pairs of tokens.
_CHUNK_TOKENS, _CHUNK_PAIRS = 4096, 2**20
# From this many steps on, a trial of which product is the faster one is worth its time.
_MANY_STEPS = 16


@instead_of(
    top_p="logits_processor=[transformers.TopPLogitsWarper(...)]",
    top_k="logits_processor=[transformers.TopKLogitsWarper(...)]",
    min_p="logits_processor=[transformers.MinPLogitsWarper(...)]",
    repetition_penalty="logits_processor=[transformers.RepetitionPenaltyLogitsProcessor(...)]",
    max_length="max_new_tokens=, which does not count the prompt",
    num_return_sequences="prompts=[prompt] * n, with do_sample=True; each has a seed of its own",
    freq_penalty="logits_processor=, with a processor of transformers or your own",
    stop_strings="stopping_criteria=[transformers.StopStringCriteria(bridge.tokenizer, [...])]",
    return_type="nothing, and read .texts or .tokens of what it returns",
    verbose="progress=True",
    eos_token_id="stopping_criteria=[transformers.EosTokenCriteria(...)]",
)
@exclusive
@torch.no_grad()
def generate(
    bridge: TransformerBridge,
    prompts: TextOrTokens | None = None,
    patch: NextTokenPatch | Sequence[NextTokenPatch | None] | None = None,
    *,
    messages: Sequence[Message] | Sequence[Sequence[Message]] | None = None,
    max_new_tokens: int,
    do_sample: bool = False,
    temperature: float = 1.0,
    logits_processor: Iterable[LogitsProcessor] | None = None,
    stopping_criteria: Iterable[StoppingCriteria] | None = None,
    stop_at_eos: bool = True,
    seed: int | Sequence[int] | Int[Tensor, " batch"] = 0,
    prepend_bos: bool | None = None,
    attention_mask: Tensor | None = None,
    prompt_length: int | Int[Tensor, " batch"] | None = None,
    text_seeds: Int[Tensor, " batch"] | None = None,
    trajectory: bool | Mapping[str, Any] = False,
    callback: Callable[[GenerationStep], object] | None = None,
    chunk_size: int | None = None,
    progress: bool = False,
) -> Generation:
    """Continue prompts, every position patched as soon as its next token is known.

    A token is predicted exactly as `teacher_forced_logits` predicts it in the finished text: the
    positions before the last are patched, the last is not. Decoding uses a cache of keys and
    values; without a patch it is plain greedy decoding or sampling. The continuation of a prompt
    does not depend on the rest of its batch, up to rounding in the model's own products. On a CPU
    it may multiply with copies of the weights, so a callback's edits of these may have no effect on
    the rest of the text.

    Hooks on the bridge act, before the patch at the same point. With a cache they get the prompts
    whole, padded on the left, and then only the last columns. So a hook that goes by column finds a
    prompt's tokens further right if there is a longer prompt in the batch. From the lowest patched
    block up, each step has one column more than without a patch, whatever the patch of a row. So
    hooks there are tried on a few random tokens first; if they do not treat all positions alike,
    every text is recomputed from its start for each token, with a warning, and they get whole
    texts.

    **Arguments:**

    - `prompts`: a text, a list of texts of any lengths, token ids, or an id tensor.
    - `messages`: instead of prompts, a conversation, `[{"role": "user", "content": "Hello"}]`, or
        several, laid out by the tokenizer's chat template. The template begins the answer, or
        ends the last message if that is the assistant's.
    - `patch`: one patch, or several to compare, which share the work on the prompts below the
        lowest patched layer; None is the model without a patch.
    - `max_new_tokens`: how many new tokens each prompt gets at most.
    - `do_sample`: draw from the distribution instead of taking the likeliest token.
    - `temperature`: the temperature of sampling, applied before `logits_processor`.
    - `logits_processor`: a list of transformers' processors, in order:
        `[transformers.TopPLogitsWarper(0.9)]` for `top_p=0.9`, and likewise `TopKLogitsWarper(50)`,
        `MinPLogitsWarper(0.05)`, `RepetitionPenaltyLogitsProcessor(1.2)`. Processors and criteria
        see prompts without padding, those of one length at a time. A `DoLa` or `SLED` is applied
        first, before the temperature, wherever it stands in the list.
    - `stopping_criteria`: criteria of transformers; a row ends when any of them says so.
    - `stop_at_eos`: end a row at the end-of-text tokens of the model's generation config, or else
        of its tokenizer.
    - `seed`: prompt i is sampled with `seed + i`, or with the i-th of several seeds, under every
        patch alike. A draw depends only on the seed, modulo 2**64, and the token's position.
    - `prepend_bos`: whether texts begin with a BOS token; by default as `bridge.to_tokens` does.
    - `attention_mask`: `[batch, pos]`, nonzero at real tokens, for an id tensor that is padded on
        either side.
    - `prompt_length`: how many tokens of each prompt count as given, for `positions="generated"`;
        all by default.
    - `text_seeds`: an integer for each prompt, so that each prompt draws its own random tokens from
        the patches' random sources.
    - `trajectory`: also read every predicting position with `logit_lens`; a mapping gives its
        options. Until the end this keeps `[batch, new, d_model]` of every residual point. Its
        `positions` count the new tokens of a row; if a row ends before them, there is a warning and
        no trajectory.
    - `callback`: a function that gets a `GenerationStep` after every token.
    - `chunk_size`: how many positions of the prompts go through the model at a time, to bound
        memory; by default as many as make 4096 tokens in the batch, and fewer of prompts longer
        than 256 tokens. While hooks are on the bridge it is all of them, and memory grows with the
        square of the longest prompt.
    - `progress`: show a progress bar over new tokens.

    **Returns:** a `Generation`.

    Raises `ValueError` if prompts leave no room in the model's context, hooks of a patch are on the
    model, it is in training mode, its logits are not numbers, a processor returns no scores or a
    criterion no bools, options contradict each other, or a hook is on the final norm or the
    unembedding while a `trajectory`, a layer contrast or a patch reads earlier residuals through
    them; `TypeError` if `logits_processor` or `stopping_criteria` is not a list, or an argument is
    of another type; what `logit_lens` raises for the options of a `trajectory`, before anything is
    decoded; `NotImplementedError` if the model has recurrent layers or is not a causal decoder, or
    a processor needs the model or all rows of a batch at once; `CacheError` if transformers does
    not fill the cache. Warns if no text reaches one of the positions that a patch names.
    """
    batch = token_batch(
        bridge,
        text_or_messages(bridge, prompts, messages),
        prepend_bos=prepend_bos,
        attention_mask=attention_mask,
    ).padded_on("right")
    patches = listed(patch)
    _check(bridge, batch, patches, max_new_tokens, chunk_size, callback)
    if trajectory is not False:
        refuse_readout_hooks(bridge)
        try_options(bridge, trajectory, max_new_tokens)
    # Padded on the left, so that all predict at the last column.
    text = KnownText.from_batch(
        batch.padded_on("left"),
        prompt_length=batch.lengths if prompt_length is None else prompt_length,
        text_seeds=text_seeds,
    )
    n_prompts, device = len(batch.tokens), batch.tokens.device
    prompt_index = torch.arange(n_prompts, device=device).repeat(len(patches))
    text = select_rows(text, prompt_index)
    n_rows, width = len(prompt_index), batch.tokens.shape[1]
    if chunk_size is None:
        # A user's hook may be made for whole prompts.
        at_once = min(_CHUNK_TOKENS, _CHUNK_PAIRS // width)
        chunk_size = width if has_user_hooks(bridge) else max(1, at_once // n_rows)
    sampler = make_sampler(
        bridge,
        do_sample=do_sample,
        temperature=temperature,
        processors=logits_processor,
        seeds=prompt_seeds(seed, n_prompts).to(device)[prompt_index],
    )
    running = decoder(
        bridge,
        PatchBatch.of_prompts(
            _bind_for(bridge, patches, n_rows * (width + max_new_tokens)), n_prompts
        ),
        length=width + max_new_tokens,
        chunk_size=chunk_size,
        record=sampler.reads if trajectory is False else point_labels(int(bridge.cfg.n_layers)),
    )
    criteria = stop_criteria(bridge, stopping_criteria, stop_at_eos=stop_at_eos)

    forwards: Forwards = []
    if max_new_tokens >= _MANY_STEPS:
        forwards = decoding_forwards(bridge.original_model, n_rows)
    taken: list[GenerationStep] = []
    ends: list[Bool[Tensor, " row"]] = []
    streams: list[dict[str, Tensor]] = []
    with progress_bar(total=max_new_tokens, shown=progress, unit="token", desc="generating") as bar:
        for step, ended in _decode(running, forwards, text, sampler, criteria, max_new_tokens):
            taken.append(step)
            ends.append(ended)
            if trajectory is not False:
                streams.append(dict(running.recorded))
            bar.update()
            if callback is not None:
                callback(step.copy())
        show_as_done(bar)

    tokens, log_probs, finished = _of_rows(taken, ends, n_rows)
    lengths = (tokens >= 0).sum(-1)
    read = batch.lengths.cpu() + lengths.reshape(len(patches), n_prompts)
    for each, reached in zip(patches, read, strict=True):
        if each is not None:
            # The last new token is not read, and the position that predicts it is not patched.
            warn_if_out_of_reach(each, reached - 1)
    assert text.prompt_length is not None
    return Generation(
        tokens=tokens,
        log_probs=log_probs,
        lengths=lengths,
        finished=finished,
        texts=_texts(bridge, tokens),
        vocab=token_strings(bridge, tokens[tokens >= 0].unique().tolist()),
        prompts=batch.tokens.masked_fill(~batch.mask, -1)[prompt_index].cpu(),
        prompt_lengths=text.prompt_length.cpu(),
        patches=patches,
        patch_index=torch.arange(len(patches)).repeat_interleave(n_prompts),
        prompt_index=prompt_index.cpu(),
        seeds=sampler.seeds.cpu(),
        text_seeds=text.seed.cpu(),
        pad=pad_token(bridge),
        trajectory=None
        if trajectory is False
        else read_steps(bridge, text, tokens, taken, streams, trajectory),
    )


def _decode(
    decoder: Decoder,
    forwards: Forwards,
    text: KnownText,
    sampler: Sampler,
    criteria: StoppingCriteriaList,
    max_new_tokens: int,
) -> Iterator[tuple[GenerationStep, Bool[Tensor, " row"]]]:
    """New tokens, and whether they end their rows; rows that have ended are dropped."""
    rows = torch.arange(len(text.tokens), device=text.tokens.device)
    for step in steps(range(max_new_tokens)):
        # Not around the loop: a callback may edit weights, or differentiate.
        with replaced_forwards(forwards):
            logits = decoder.logits(text)
        scores = sampler.scores(text, logits, decoder.recorded)
        new = sampler.choose(text, scores, rows)
        log_probs = log_probs_of(logits, new)
        if (lost := log_probs.isnan()).any():
            raise ValueError(
                f"the model's logits for new token {step} of row {int(rows[lost][0])} are not a "
                "number: look for a hook or patch that writes such values, or a half-precision "
                "overflow"
            )
        text = replace(
            text, tokens=torch.cat([text.tokens, new[:, None]], dim=1), length=text.length + 1
        )
        ended = has_ended(criteria, text, scores)
        yield GenerationStep(step, rows.cpu(), new.cpu(), log_probs.cpu()), ended.cpu()
        going_on = (~ended).nonzero()[:, 0]
        if len(going_on) == 0:
            return
        if len(going_on) < len(rows):
            decoder.keep(going_on)
            text, rows = select_rows(text, going_on), rows[going_on]


def _of_rows(
    taken: Sequence[GenerationStep], ends: Sequence[Bool[Tensor, " row"]], n_rows: int
) -> tuple[Int[Tensor, "batch new"], Float[Tensor, "batch new"], Bool[Tensor, " batch"]]:
    """The new tokens of all rows, their log-probabilities, and whether each row has ended."""
    tokens = torch.full((n_rows, len(taken)), -1)
    log_probs = torch.full(tokens.shape, torch.nan, dtype=taken[0].log_probs.dtype)
    finished = torch.zeros(n_rows, dtype=torch.bool)
    for step, ended in zip(taken, ends, strict=True):
        tokens[step.rows, step.step] = step.tokens
        log_probs[step.rows, step.step] = step.log_probs
        finished[step.rows] = ended
    return tokens, log_probs, finished


def _check(
    bridge: TransformerBridge,
    batch: TokenBatch,
    patches: Sequence[NextTokenPatch | None],
    max_new_tokens: int,
    chunk_size: int | None,
    callback: object,
) -> None:
    refuse_hooks_of_patches(bridge)
    require_counts(max_new_tokens=max_new_tokens)
    require_counts_or_none(chunk_size=chunk_size)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a function of a GenerationStep, got {callback!r:.60}")
    if not patches:
        raise ValueError("the list of patches is empty: pass None to generate without a patch")
    longest, context = int(batch.lengths.max()), int(bridge.cfg.n_ctx)
    if longest + max_new_tokens > context:
        raise ValueError(
            f"{longest} tokens of prompt and {max_new_tokens} new ones do not fit the model's "
            f"context of {context}: ask for {context - longest} at most"
        )


def _bind_for(
    bridge: TransformerBridge, patches: Sequence[NextTokenPatch | None], rows: int
) -> list[BoundPatch | None]:
    """The patches on a bridge; those that read the lens share what prepares it for many rows."""
    bounds = bind_all(bridge, patches)
    if not any(bound and bound.patch.reads_lens for bound in bounds):
        return bounds
    read = readout(bridge).for_rows(rows)
    return [bound and replace(bound, readout=read) for bound in bounds]


def _texts(bridge: TransformerBridge, tokens: Int[Tensor, "batch new"]) -> tuple[str, ...] | None:
    if bridge.tokenizer is None:
        return None
    return tuple(
        bridge.tokenizer.decode(row[row >= 0].tolist(), skip_special_tokens=True) for row in tokens
    )
