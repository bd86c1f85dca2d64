"""Losses with continuations hidden, each prediction in a run of its own prefix.

Shares no code with the package. Attention of the last position is computed here, from the pattern
that the model reports: hidden positions are struck out of it and the rest is scaled up to 1.
"""

from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge


@torch.no_grad()
def hidden_nats(
    bridge: TransformerBridge, tokens: Tensor, layer: int, write: Any, through: str = "both"
) -> Tensor:
    """Nats `[pos - 1]` of one text `[pos]`.

    `write(resid, t)` returns `r[layer]` `[1, t + 1, d_model]` with the positions before t patched;
    None writes nothing.
    """
    nats = []
    for t in range(len(tokens) - 1):
        prefix = tokens[None, : t + 1]
        shown = [j for j in range(t + 1) if j in (0, t) or tokens[j - 1] != tokens[t]]
        writing = [] if write is None else [_written(layer, write, t)]
        base = [] if through == "values" else writing
        values = _values(bridge, prefix, layer, [] if through == "keys" else writing)
        logits = _last(bridge, prefix, layer, base, values, shown)
        nats.append(-logits.log_softmax(-1)[tokens[t + 1]])
    return torch.stack(nats)


def _written(layer: int, write: Any, t: int) -> tuple[str, Any]:
    def put(resid: Tensor, hook: Any) -> Tensor:
        return write(resid.clone(), t)

    return f"blocks.{layer}.hook_resid_pre", put


def _values(bridge: TransformerBridge, prefix: Tensor, layer: int, hooks: list) -> dict:
    """The values of every position, by layer."""
    kept = {}

    def keeping(number: int) -> Any:
        def keep(value: Tensor, hook: Any) -> None:
            kept[number] = value[0].clone()

        return keep

    names = [
        (f"blocks.{number}.attn.hook_v", keeping(number))
        for number in range(layer, bridge.cfg.n_layers)
    ]
    bridge.run_with_hooks(prefix, fwd_hooks=[*hooks, *names])
    return kept


def _last(
    bridge: TransformerBridge, prefix: Tensor, layer: int, hooks: list, values: dict, shown: list
) -> Tensor:
    """Logits at the last position, which alone reads those values, at the positions shown."""
    hooks = list(hooks)
    for number in range(layer, bridge.cfg.n_layers):
        seen: dict[str, Tensor] = {}

        def keep_value(value: Tensor, hook: Any, seen: dict = seen) -> None:
            seen["own"] = value[0, -1]

        def keep_pattern(pattern: Tensor, hook: Any, seen: dict = seen) -> None:
            seen["pattern"] = pattern[0, :, -1]

        hooks += [
            (f"blocks.{number}.attn.hook_v", keep_value),
            (f"blocks.{number}.attn.hook_pattern", keep_pattern),
            (f"blocks.{number}.attn.hook_z", _mixing(seen, values[number], shown)),
        ]
    return bridge.run_with_hooks(prefix, fwd_hooks=hooks)[0, -1]


def _mixing(seen: dict, value: Tensor, shown: list) -> Any:
    def mix(z: Tensor, hook: Any) -> Tensor:
        mixed = value.clone()
        mixed[-1] = seen["own"]
        heads = []
        for head, pattern in enumerate(seen["pattern"]):
            of_head = mixed[:, head * mixed.shape[1] // len(seen["pattern"])]
            heads.append(pattern[shown] @ of_head[shown] / pattern[shown].sum())
        z = z.clone()
        z[0, -1] = torch.stack(heads).reshape(z[0, -1].shape)
        return z

    return mix
