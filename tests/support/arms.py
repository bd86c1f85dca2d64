"""Arms of units on tiny models, and the next token's logits by plain hooks."""

import torch
from transformer_lens.model_bridge import TransformerBridge

from lens_interventions.experiments.design.conditions import (
    NO_PATCH,
    Arm,
    PatchSettings,
)

PATCH = PatchSettings()


ARMS = [NO_PATCH, Arm("true", 1, 0.5, "interpolate"), Arm("random", 1, 0.5, "interpolate")]


def next_logits(bridge: TransformerBridge, tokens: list[int], arm: Arm) -> torch.Tensor:
    """Logits after a text, with plain hooks on all positions but the last."""
    text = torch.tensor([tokens])
    patch = PATCH.patches(bridge, [arm])[0]
    seeds = torch.tensor([7])
    hooks = [] if patch is None else patch.fwd_hooks(bridge, text, text_seeds=seeds)
    return bridge.run_with_hooks(text, fwd_hooks=hooks)[0, -1]
