"""Generation as the definition has it: for each token everything is computed anew, one text alone.

Shares no code with the package, only the fields of a patch.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from tests.support.reference_intervention import patched_logits, unpatched_ends


def generate_naively(
    bridge: TransformerBridge,
    prompt: list[int],
    patch: Any,
    n_new: int,
    *,
    text_seed: int = 0,
    choose: Callable[[Tensor], int] = lambda logits: int(logits.argmax()),
    end: int | None = None,
) -> tuple[list[int], Tensor]:
    """New tokens and the logits `[new, d_vocab]` that each was chosen from."""
    tokens, rows = list(prompt), []
    unpatched = None if patch is None else unpatched_ends(bridge, patch)
    while len(tokens) < len(prompt) + n_new and (not rows or tokens[-1] != end):
        rows.append(next_logits(bridge, tokens, patch, len(prompt), text_seed, unpatched))
        tokens.append(choose(rows[-1]))
    return tokens[len(prompt) :], torch.stack(rows)


def next_logits(
    bridge: TransformerBridge,
    tokens: list[int],
    patch: Any,
    prompt_length: int,
    text_seed: int,
    unpatched: Callable[[tuple[int, ...]], tuple[Tensor, Tensor]] | None = None,
) -> Tensor:
    """Logits at the last of the tokens, `[d_vocab]`."""
    with torch.no_grad():
        if patch is None:
            return bridge(torch.tensor([tokens]))[0, -1]
        return patched_logits(
            bridge,
            torch.tensor(tokens),
            patch,
            prompt_length=prompt_length,
            text_seed=text_seed,
            only_last=True,
            unpatched=unpatched,
        )[0]


def naive_tokens(
    bridge: TransformerBridge, prompts: list[list[int]], patch: Any, n_new: int
) -> list[list[int]]:
    """The tokens that `generate_naively` adds to each of several prompts."""
    return [generate_naively(bridge, prompt, patch, n_new)[0] for prompt in prompts]
