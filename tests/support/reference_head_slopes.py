"""The loss where the keys or values of one head see a patch, each prediction in a run of its own.

Shares no code with the package: keys and values of the patched residual are read in one run and
put into another, a head at a time.
"""

from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge


@torch.no_grad()
def nats_with_one_head_patched(
    bridge: TransformerBridge, tokens: Tensor, layer: int, write: Any, part: str, head: int
) -> Tensor:
    """The sum of nats over one text `[pos]`.

    `write(resid, t)` returns `r[layer]` `[1, t + 1, d_model]` with the positions before t patched.
    `part` is `"k"` or `"v"`.
    """
    name, total = f"blocks.{layer}.attn.hook_{part}", torch.zeros((), dtype=torch.float64)
    for t in range(len(tokens) - 1):
        prefix, kept = tokens[None, : t + 1], {}

        def put(resid: Tensor, hook: Any, t: int = t) -> Tensor:
            return write(resid.clone(), t)

        def keep(tensor: Tensor, hook: Any, kept: dict = kept) -> None:
            kept["patched"] = tensor[:, :, head].clone()

        def replace(tensor: Tensor, hook: Any, kept: dict = kept) -> Tensor:
            tensor = tensor.clone()
            tensor[:, :, head] = kept["patched"]
            return tensor

        bridge.run_with_hooks(
            prefix, fwd_hooks=[(f"blocks.{layer}.hook_resid_pre", put), (name, keep)]
        )
        logits = bridge.run_with_hooks(prefix, fwd_hooks=[(name, replace)])[0, -1]
        total -= logits.log_softmax(-1)[tokens[t + 1]]
    return total
