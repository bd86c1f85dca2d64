"""How much each head attends to what followed an earlier occurrence of the current token."""

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ..._counter_random import random_integers
from ...model.hooks import capture


@torch.no_grad()
def prefix_matching(
    bridge: TransformerBridge, *, n_tokens: int = 32, n_texts: int = 4, seed: int = 0
) -> Float[Tensor, "layer head"]:
    """The mean attention of each head, on random tokens said twice, to the token to be copied.

    From each position of the second copy to the one after the same token in the first: the
    prefix-matching score of Olsson et al. 2022, by which induction heads are known. It is between 0
    and 1, for each query head.

    Raises `NotImplementedError` for a model whose attention patterns cannot be read.
    """
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(int(bridge.cfg.n_layers))]
    missing = [name for name in names if name not in bridge.hook_dict]
    if missing:
        raise NotImplementedError(f"{bridge.cfg.architecture} has no {missing[0]}")
    counter = torch.arange(n_texts * n_tokens, device=bridge.cfg.device).view(n_texts, n_tokens)
    part = random_integers(int(bridge.cfg.d_vocab), seed, counter)
    patterns = capture(bridge, torch.cat([part, part], dim=1), names)
    second = torch.arange(n_tokens, 2 * n_tokens, device=bridge.cfg.device)
    return torch.stack(
        [pattern[:, :, second, second - n_tokens + 1].mean((0, 2)) for pattern in patterns]
    )
