"""Slopes of weak patches at every layer, which choose the layers of the grid."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...intervention.losses.scopes import Scope
from ...intervention.slopes.slope_map import slope_map
from ...intervention.sources import SOURCES, control_names
from ..design.conditions import PatchSettings
from ..design.sequences import TokenSequence
from ..engine.json_values import from_values
from ..engine.work_units import unit_kind

WORD = "word"
"""The scope of the word at the end of a template; other names are those of `scopes.SCOPES`."""


@unit_kind("first-order map")
def measure_map(
    bridge: TransformerBridge,
    sequences: Sequence[Mapping[str, Any]],
    scopes: Sequence[str],
    sources: Sequence[str],
    patch: Mapping[str, Any],
) -> pd.DataFrame:
    """A row for each sequence, scope, source and layer: the slope of the sum of `count` losses.

    Slopes are of mode "add", in nats per unit of strength. `patch` holds the `PatchSettings`.
    """
    settings = from_values(PatchSettings, patch)
    texts = [from_values(TokenSequence, values) for values in sequences]
    known = {WORD: _last_tokens({text.tokens: text.copied for text in texts})}
    found = slope_map(
        bridge,
        [torch.tensor(text.tokens) for text in texts],
        sources=sources,
        scopes=[known.get(scope, scope) for scope in scopes],
        embeddings=(settings.embedding,),
        scale=settings.scale,
        gate=settings.gate,
        gate_on=settings.gate_on,
        lens=settings.fitted_lens(),
        first_position=settings.first_position,
        max_length=max(len(text.tokens) for text in texts),
        seed=settings.seed,
        progress=False,
    )
    rows = [
        {
            "half": text.half,
            "sequence": text.number,
            "cluster": text.cluster,
            "category": text.tags,
            "scope": scope,
            "source": source,
            "layer": layer,
            "total": float(found.totals[row, s, 0, 0, k, place]),
            "count": int(found.counts[row, s]),
        }
        for row, text in enumerate(texts)
        for s, scope in enumerate(scopes)
        for k, source in enumerate(sources)
        for place, layer in enumerate(found.layers)
    ]
    return pd.DataFrame(rows)


def map_sources() -> list[str]:
    """The sources that need no lens: the true one, and controls that write something."""
    return [
        name
        for name in ("true", *control_names())
        if not SOURCES[name].reads_lens and SOURCES[name].role != "no news"
    ]


def best_layers(rows: pd.DataFrame, n: int) -> list[int]:
    """The `n` layers with the lowest slope of the true source, and the `n` of its largest lead.

    The lead is over the control with the lowest slope there. `rows` are those of one question.
    """
    sums = rows.groupby(["source", "layer"])[["total", "count"]].sum()
    slopes = (sums["total"] / sums["count"].clip(lower=1)).unstack("source")
    controls = slopes.drop(columns="true")
    by_gain = slopes["true"].sort_values().index[:n]
    by_lead = (slopes["true"] - controls.min(axis=1)).sort_values().index[:n]
    return sorted({*map(int, by_gain), *map(int, by_lead)})


def _last_tokens(copied: Mapping[tuple[int, ...], int]) -> Scope:
    """The scope of the last tokens of each text, as many as `copied` says."""

    def word(tokens: Int[Tensor, " pos"], nats: Float[Tensor, " next"]) -> Bool[Tensor, " next"]:
        n = copied[tuple(tokens.tolist())]
        return torch.arange(len(nats), device=nats.device) >= len(nats) - n

    return word
