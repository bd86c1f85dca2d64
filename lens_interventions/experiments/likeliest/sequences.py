"""Ways to search for a likely sequence, each a function to token ids, and their names."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import DynamicCache, GenerationConfig, SuppressTokensLogitsProcessor

from ...intervention.generation.generate import generate
from ...model.attention_cache import as_argument
from ...model.vocabulary import special_ids
from ...search.options import SearchOptions
from ...search.search_sequence import search_sequence

GREEDY, SAMPLE = "greedy", "one sample"


def beam_name(width: int) -> str:
    """The name of a beam search of this width."""
    return f"beam search, {width}"


def best_name(width: int) -> str:
    """The name of the best of this many samples."""
    return f"best of {width} samples"


def ascent_name(times: int = 1) -> str:
    """The name of the ascent, at this many times the cost of the others."""
    return "gradient ascent" + ("" if times == 1 else f", {times} times the price")


def swaps_name(start: str) -> str:
    """The name of swaps that begin with the result of another way."""
    return f"{start}, then swaps"


def drawn(
    bridge: TransformerBridge, prompt: Sequence[int], length: int, width: int, seed: int
) -> dict[str, Int[Tensor, " new"]]:
    """Greedy decoding, a sample at temperature 1, and the likeliest of `width` of them."""
    free = [SuppressTokensLogitsProcessor(special_ids(bridge), device=str(bridge.cfg.device))]
    common: dict[str, Any] = {
        "max_new_tokens": length,
        "stop_at_eos": False,
        "logits_processor": free,
    }
    greedy = generate(bridge, [list(prompt)], **common)
    samples = generate(bridge, [list(prompt)] * width, do_sample=True, seed=seed, **common)
    best = int(samples.log_probs.sum(-1).argmax())
    return {
        GREEDY: greedy.tokens[0],
        SAMPLE: samples.tokens[0],
        best_name(width): samples.tokens[best],
    }


def beam(
    bridge: TransformerBridge, prompt: Sequence[int], length: int, width: int
) -> Int[Tensor, " new"]:
    """The likeliest sequence that transformers' beam search finds.

    Beams are ranked by their log-likelihood under the model, whatever its generation config says of
    penalties and bans. The special tokens are not allowed, and their probability is not shared out
    among the others.
    """
    tokens = torch.tensor([list(prompt)], device=bridge.cfg.device)
    model: Any = bridge.original_model
    known: dict[str, Any] = {}
    if tokens.shape[1] > 1:
        cache = DynamicCache()
        known = as_argument(bridge, cache)
        model(tokens[:, :-1], use_cache=True, **known)
        cache.batch_repeat_interleave(width)
    wanted = GenerationConfig(
        num_beams=width,
        do_sample=False,
        max_new_tokens=length,
        length_penalty=0.0,
        suppress_tokens=special_ids(bridge) or None,
        pad_token_id=0,
    )
    own = model.generation_config
    try:
        # What a config leaves open, transformers fills in from the model's own.
        model.generation_config = GenerationConfig()
        found = model.generate(
            tokens, generation_config=wanted, attention_mask=torch.ones_like(tokens), **known
        )
    finally:
        model.generation_config = own
    return found[0, tokens.shape[1] :].cpu()


def searched(
    bridge: TransformerBridge,
    prompt: Sequence[int],
    length: int,
    *,
    variant: str,
    budget: int,
    seed: int,
    start: Int[Tensor, " new"] | None = None,
) -> Int[Tensor, " new"]:
    """The best sequence of `search_sequence` with one restart."""
    found = search_sequence(
        bridge,
        list(prompt),
        length,
        method=variant,  # type: ignore[arg-type]
        budget=budget,
        start=None if start is None else start[None],
        options=SearchOptions(restarts=1),
        seed=seed,
        progress=False,
    )
    return found.tokens[0]
