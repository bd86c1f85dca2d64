"""Texts that a model writes itself, as a corpus of the kind of text that it knows."""

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ..._progress import progress_bar
from ...model.argument_types import require_counts, require_whole_numbers
from ...model.exclusive import exclusive
from .decoder import require_decodable
from .generate import generate
from .result import GenerationStep

TEXTS_AT_ONCE = 64
"""Texts that are written together: with more, keys and values that a step copies no longer come
from the allocator's pool, which costs a CPU a third of the time at 128."""


@exclusive
def sample_texts(
    bridge: TransformerBridge,
    n_texts: int,
    *,
    length: int = 128,
    seed: int = 0,
    progress: bool = True,
) -> Iterator[Int[Tensor, " pos"]]:
    """Texts sampled without a prompt at temperature 1, one at a time, `[length]` tokens each.

    They come from the model's own distribution, so they are what its training made likely: a lens
    or a probe that is fitted to them reads ordinary text better than one fitted to as much text of
    a manual. Nothing is filtered, and after an end-of-text token another text begins in the same
    sample.

    **Arguments:**

    - `n_texts`: how many texts.
    - `length`: tokens of each text. The first one is the tokenizer's BOS, or its EOS if it has no
        BOS.
    - `seed`: text i is drawn with `seed + i`, whatever `n_texts` is.
    - `progress`: show a progress bar over texts.

    Raises `ValueError` if `n_texts` is below 1, `length` is below 2 or beyond the model's context,
    the tokenizer names neither BOS nor EOS, or the model is in training mode or its logits are not
    the unembedding of its last residual; `TypeError` if a number is not a whole one;
    `NotImplementedError` if the model has recurrent layers or is not a causal decoder.
    """
    require_whole_numbers(n_texts=n_texts, length=length, seed=seed)
    require_counts(n_texts=n_texts)
    context = int(bridge.cfg.n_ctx)
    if not 2 <= length <= context:
        raise ValueError(f"length must be from 2 to the model's context {context}, got {length}")
    require_decodable(bridge)
    start = _start(bridge)
    return _sampled(bridge, start, n_texts, length, seed, progress)


def _sampled(
    bridge: TransformerBridge, start: int, n_texts: int, length: int, seed: int, progress: bool
) -> Iterator[Int[Tensor, " pos"]]:
    with progress_bar(total=n_texts, shown=progress, unit="text", desc="sampling") as bar:
        for first in range(0, n_texts, TEXTS_AT_ONCE):
            prompts = torch.full((min(TEXTS_AT_ONCE, n_texts - first), 1), start)

            def told(step: GenerationStep, first: int = first, n: int = len(prompts)) -> None:
                bar.update(first + n * (step.step + 1) // (length - 1) - bar.n)

            written = generate(
                bridge,
                prompts,
                max_new_tokens=length - 1,
                do_sample=True,
                stop_at_eos=False,
                seed=seed + first,
                callback=told,
            )
            yield from torch.cat([prompts, written.tokens.cpu()], dim=1)


def _start(bridge: TransformerBridge) -> int:
    tokenizer = bridge.tokenizer
    for name in ("bos_token_id", "eos_token_id"):
        if (token := getattr(tokenizer, name, None)) is not None:
            return int(token)
    raise ValueError(
        f"the tokenizer of {bridge.cfg.model_name} names no token that begins or ends a text to "
        "sample from: give texts of your own"
    )
