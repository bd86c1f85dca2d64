"""Slopes, curvatures and patched losses of a batch of texts, as rows of sums."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge

from ...intervention.patch import NextTokenPatch
from ...intervention.slopes.controls import source_of
from ...intervention.slopes.curvature import curvature
from ...intervention.slopes.pieces import piece_batches, text_tokens
from ...intervention.slopes.scopes import SCOPES, chosen_predictions
from ...intervention.slopes.slope_map import slope_map
from ...intervention.teacher_forcing.log_probs import teacher_forced_log_probs
from ..engine.work_units import unit_kind

Sequences = Sequence[Mapping[str, Any]]


@unit_kind("slopes")
def measure_slopes(
    bridge: TransformerBridge,
    material: str,
    scope: str,
    sequences: Sequences,
    sources: Sequence[str],
    modes: Sequence[str],
    seed: int,
) -> pd.DataFrame:
    """A row for each text, source, mode and layer: the slope of the sum of its `count` losses."""
    found = slope_map(
        bridge,
        _tokens(bridge, sequences),
        sources=sources,
        modes=modes,
        scopes=[scope],
        max_length=_longest(sequences),
        seed=seed,
        progress=False,
    )
    return pd.DataFrame(
        [
            {
                **_named(material, sequence),
                "layer": layer,
                "source": source,
                "mode": mode,
                "total": found.totals[row, 0, 0, m, s, place],
                "count": found.counts[row, 0],
                "nats": found.nats[row, 0],
            }
            for row, sequence in enumerate(sequences)
            for m, mode in enumerate(found.modes)
            for s, source in enumerate(found.sources)
            for place, layer in enumerate(found.layers)
        ]
    )


@unit_kind("curvatures")
def measure_curvature(
    bridge: TransformerBridge,
    material: str,
    scope: str,
    sequences: Sequences,
    layer: int,
    sources: Sequence[str],
    mode: str,
    seed: int,
) -> pd.DataFrame:
    """A row for each text and source at a layer: slope and curvature of the sum of its losses."""
    found = curvature(
        bridge,
        _tokens(bridge, sequences),
        [_patch(sequences, layer, source, mode, 1.0, seed) for source in sources],
        scopes=[scope],
        max_length=_longest(sequences),
        progress=False,
    )
    return pd.DataFrame(
        [
            {
                **_named(material, sequence),
                "layer": layer,
                "source": source,
                "mode": mode,
                "slope": found.slopes[row, 0, place],
                "curvature": found.curvatures[row, 0, place],
                "error": found.errors[row, 0, place],
                "count": found.counts[row, 0],
            }
            for row, sequence in enumerate(sequences)
            for place, source in enumerate(sources)
        ]
    )


@unit_kind("patched losses")
def measure_patched(
    bridge: TransformerBridge,
    material: str,
    scope: str,
    sequences: Sequences,
    layer: int,
    strengths: Mapping[str, float],
    mode: str,
    seed: int,
) -> pd.DataFrame:
    """A row for each text and source: the sum of its losses with the patch, minus without."""
    patches = [
        _patch(sequences, layer, source, mode, strength, seed)
        for source, strength in strengths.items()
    ]
    rows = []
    texts = enumerate(text_tokens(bridge, _tokens(bridge, sequences), None))
    for batch in piece_batches(texts, _longest(sequences)):
        text = batch.text
        losses = -teacher_forced_log_probs(
            bridge,
            text.tokens,
            [None, *patches],
            attention_mask=text.column_positions() >= 0,
            text_seeds=text.seed,
        ).double()
        nats = losses[0].nan_to_num()
        padded = torch.cat([nats, torch.zeros_like(nats[:, :1])], dim=1)
        where = chosen_predictions(SCOPES[scope], text.tokens, padded, text.length)[:, :-1]
        clean, *patched = losses.where(where, 0).sum(-1).cpu()
        for (source, strength), sums in zip(strengths.items(), patched, strict=True):
            rows += [
                {
                    **_named(material, sequences[owner]),
                    "layer": layer,
                    "source": source,
                    "mode": mode,
                    "strength": strength,
                    "total": float(sums[piece] - clean[piece]),
                    "count": float(where[piece].sum()),
                }
                for piece, owner in enumerate(batch.owners)
            ]
    return pd.DataFrame(rows)


def _tokens(bridge: TransformerBridge, sequences: Sequences) -> list[torch.Tensor]:
    device = bridge.cfg.device
    return [torch.tensor([sequence["tokens"]], device=device) for sequence in sequences]


def _longest(sequences: Sequences) -> int:
    return max(len(sequence["tokens"]) for sequence in sequences)


def _named(material: str, sequence: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "material": material,
        "half": sequence["half"],
        "sequence": sequence["number"],
        "cluster": sequence["cluster"],
    }


def _patch(
    sequences: Sequences, layer: int, source: str, mode: str, strength: float, seed: int
) -> NextTokenPatch:
    """The patch of a cell, which spares the first token as `slope_map` does."""
    return NextTokenPatch(
        layer=layer,
        strength=strength,
        source=source_of(source),
        mode=mode,  # type: ignore[arg-type]
        scale="norm",
        positions=tuple(range(1, _longest(sequences))),
        seed=seed,
    )
