"""The loss with directions taken out of one layer's residual stream."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...intervention.ablation import projected
from ...intervention.mean_residuals import mean_residuals
from ...intervention.teacher_forcing.self_check import require_late_blocks
from ...lens.distributions import log_probs_of
from ...lens.unlikely_pool import Matching, Pool, likeliest
from ...model.partial_run import run_late_blocks
from ...model.points import FINAL
from ...model.precision import as_double
from ...model.readout import LOGIT_ROWS, Readout, readout
from ...model.residuals import residuals
from ...model.tokens import TokenBatch
from ..engine.work_units import unit_kind

NOTHING, TOKENS, RANDOM, LIKELY = (
    "nothing",
    "unlikely tokens",
    "unlikely random directions",
    "likeliest tokens",
)
"""What is taken out."""


@unit_kind("ablation of unlikely tokens")
def measure_ablation(
    bridge: TransformerBridge,
    documents: Sequence[Mapping[str, Any]],
    layers: Sequence[int],
    below: float,
    directions: int,
    ablated: int,
    seed: int,
) -> pd.DataFrame:
    """A row per document, layer and what is taken out: the loss over its next tokens.

    At each position except the first, the residual is set to the mean residual along some
    directions: the `ablated` ones with the largest components, among those of unlikely tokens of
    `directions` drawn tokens, and among as many unlikely random directions; and the directions of
    the `ablated` likeliest tokens. `removed` is the share of the squared residual, minus its mean,
    along them.
    """
    # Every text is read once for its likeliest tokens, and once for each loss.
    times = 2 + len(layers) * len((TOKENS, RANDOM, LIKELY))
    read = readout(bridge).for_rows(times * sum(len(document["tokens"]) for document in documents))
    means, matching = mean_residuals(bridge), Matching.of(read)
    rows = []
    for number, document in enumerate(documents):
        tokens = torch.tensor(document["tokens"], device=bridge.cfg.device)
        labels = [*(f"{layer}_pre" for layer in layers), FINAL]
        batch = TokenBatch.unpadded(tokens[None])
        *streams, last = (stream[0] for stream in residuals(bridge, batch, labels))
        normalized = read.normalize(last)
        ids, log_normalizer = likeliest(read, normalized, ablated)
        pools = matching.draw(directions, seed + number)
        ruled_out = [pool.log_probs(normalized, log_normalizer) < math.log(below) for pool in pools]
        likely, clean = read.unit_directions(read.weight[ids]), _loss(read, last, tokens)
        for layer, stream in zip(layers, streams, strict=True):
            if number == 0:
                require_late_blocks(bridge, layer, stream[None], last[None])
            moved = stream - means[layer].to(stream)
            chosen = {
                **{
                    name: _strongest(pool, moved, mask, ablated)
                    for name, pool, mask in zip((TOKENS, RANDOM), pools, ruled_out, strict=True)
                },
                LIKELY: likely,
            }
            stacked = torch.stack(list(chosen.values()))
            stacked[:, 0] = 0  # the first position is an outlier, on which attention rests
            part = projected(moved.expand(len(stacked), -1, -1), stacked)
            after = run_late_blocks(bridge, layer, (stream - part).to(stream))
            removed = part[:, 1:].square().sum((-1, -2)) / moved[1:].square().sum()
            totals = [clean, *(_loss(read, stream_after, tokens) for stream_after in after)]
            rows += [
                {
                    "document": document["cluster"],
                    "layer": layer,
                    "taken_out": name,
                    "total": total,
                    "count": len(tokens) - 1,
                    "removed": share,
                }
                for name, total, share in zip(
                    (NOTHING, *chosen), totals, (0.0, *removed.tolist()), strict=True
                )
            ]
    return pd.DataFrame(rows)


def _strongest(
    pool: Pool,
    moved: Float[Tensor, "pos d_model"],
    mask: Bool[Tensor, "pos token"],
    n: int,
) -> Float[Tensor, "pos n d_model"]:
    """The directions of a pool, among those of the mask, with each row's largest components.

    Missing directions are rows of zeros.
    """
    size = (moved @ pool.directions.T).abs().masked_fill(~mask, -1.0)
    top = size.topk(n)
    return pool.directions[top.indices] * (top.values >= 0)[..., None]


def _loss(
    read: Readout, stream: Float[Tensor, "pos d_model"], tokens: Int[Tensor, " pos"]
) -> float:
    """The sum of `-log p(x[i+1])`, nats."""
    parts = zip(stream[:-1].split(LOGIT_ROWS), tokens[1:].split(LOGIT_ROWS), strict=True)
    return -sum(float(as_double(log_probs_of(read(rows), ids)).sum()) for rows, ids in parts)
