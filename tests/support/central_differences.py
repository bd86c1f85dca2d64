"""Slopes of patched losses, from losses at small strengths."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

import lens_interventions as li
from lens_interventions.intervention.pieces import piece_batches, text_tokens


def central_difference(
    bridge: TransformerBridge,
    texts: Sequence[Tensor],
    patch: li.NextTokenPatch,
    where: Sequence[Tensor] | None = None,
) -> np.ndarray:
    """d(nats)/d(strength) of each text by itself, from patched losses."""
    h = 1e-4
    slopes = []
    for number, tokens in enumerate(texts):
        (batch,) = piece_batches(enumerate(text_tokens(bridge, [tokens], None)), 128)
        up, up2, down, down2 = (
            li.teacher_forced_log_probs(
                bridge,
                tokens,
                [dataclasses.replace(patch, strength=a) for a in (h, 2 * h, -h, -2 * h)],
                text_seeds=batch.text.seed,
            )
            .where(torch.tensor(True) if where is None else where[number], 0)
            .sum((-1, -2))
        )
        slopes.append(-float(8 * (up - down) - (up2 - down2)) / (12 * h))
    return np.array(slopes)
