"""Slopes and patched losses of a batch of texts, as rows of sums."""

from collections.abc import Mapping, Sequence

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ...intervention.losses.loss_sums import loss_sums
from ...intervention.losses.scopes import SCOPES
from ...intervention.pieces import piece_batches, text_tokens
from ...intervention.slopes.slope_map import slope_map
from ..engine.work_units import unit_kind
from .unit_texts import Sequences, longest, named, patch_of, tokens_of


@unit_kind("slopes")
def measure_slopes(
    bridge: TransformerBridge,
    material: str,
    scope: str,
    sequences: Sequences,
    sources: Sequence[str],
    modes: Sequence[str],
    embedding: str,
    seed: int,
) -> pd.DataFrame:
    """A row for each text, source, mode and layer: the slope of the sum of its `count` losses."""
    found = slope_map(
        bridge,
        tokens_of(bridge, sequences),
        sources=sources,
        modes=modes,
        embeddings=[embedding],  # type: ignore[list-item]
        scopes=[scope],
        max_length=longest(sequences),
        seed=seed,
        progress=False,
    )
    return pd.DataFrame(
        [
            {
                **named(material, sequence),
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


@unit_kind("changes of losses")
def measure_patched(
    bridge: TransformerBridge,
    material: str,
    scope: str,
    sequences: Sequences,
    layer: int,
    strengths: Mapping[str, Sequence[float]],
    mode: str,
    embedding: str,
    seed: int,
) -> pd.DataFrame:
    """A row for each text, source and strength: the sum of its losses, minus that without a patch.

    `strengths` has those of each source.
    """
    cells = [(source, strength) for source, each in strengths.items() for strength in each]
    patches = [
        patch_of(sequences, layer, source, mode, strength, embedding, seed)
        for source, strength in cells
    ]
    rows = []
    texts = enumerate(text_tokens(bridge, tokens_of(bridge, sequences), None))
    for batch in piece_batches(texts, longest(sequences)):
        (sums,) = loss_sums(bridge, batch.text, patches, [SCOPES[scope]])
        counts, clean = sums.counts.cpu(), sums.clean.cpu()
        for (source, strength), patched in zip(cells, sums.patched.cpu(), strict=True):
            rows += [
                {
                    **named(material, sequences[owner]),
                    "layer": layer,
                    "source": source,
                    "mode": mode,
                    "strength": strength,
                    "total": float(patched[piece] - clean[piece]),
                    "count": float(counts[piece]),
                }
                for piece, owner in enumerate(batch.owners)
            ]
    return pd.DataFrame(rows)
