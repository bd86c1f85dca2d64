"""The stages: components along directions at every point, then ablations at some layers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ..._counter_random import SEEDS_APART
from ...lens.unlikely_tokens import GROUPS, MEASURES, unlikely_components
from ..design.documents import documents_with_components
from ..engine.results import Tables
from ..engine.run import Stage
from ..engine.work_units import Unit, unit_kind
from .ablation import measure_ablation
from .settings import UnlikelySettings


def components_stage(
    bridge: TransformerBridge, settings: UnlikelySettings, _rows: Tables
) -> Sequence[Unit]:
    """Components along unlikely tokens and the directions that they are compared with, by point."""
    return [
        Unit("components", name, measure_components, parameters)
        for name, parameters in _batches(bridge, settings)
    ]


def ablation_stage(
    bridge: TransformerBridge, settings: UnlikelySettings, _rows: Tables
) -> Sequence[Unit]:
    """Losses with directions taken out.

    Raises `ValueError` if more directions are to be taken out than the model has tokens.
    """
    if settings.ablated > int(bridge.cfg.d_vocab):
        raise ValueError(
            f"ablated={settings.ablated} is more than the {bridge.cfg.d_vocab} tokens of the model"
        )
    layers = settings.layers(int(bridge.cfg.n_layers))
    more = {"layers": layers, "ablated": settings.ablated}
    return [
        Unit("ablation", name, measure_ablation, {**parameters, **more})
        for name, parameters in _batches(bridge, settings)
    ]


STAGES: dict[str, Stage] = {"components": components_stage, "ablation": ablation_stage}


def _batches(
    bridge: TransformerBridge, settings: UnlikelySettings
) -> list[tuple[str, dict[str, Any]]]:
    """Names and parameters of units, each with some of the documents."""
    documents = documents_with_components(
        bridge,
        settings.texts,
        documents=settings.documents,
        tokens=settings.document_tokens,
        seed=settings.seed,
        least=1,
    )
    return [
        (
            f"{start:03d}",
            {
                "documents": documents[start : start + settings.batch],
                "below": settings.below,
                "directions": settings.directions,
                # Each document draws with a seed of its own.
                "seed": settings.seed * SEEDS_APART + start,
            },
        )
        for start in range(0, len(documents), settings.batch)
    ]


@unit_kind("components along unlikely tokens")
def measure_components(
    bridge: TransformerBridge,
    documents: Sequence[Mapping[str, Any]],
    below: float,
    directions: int,
    seed: int,
) -> pd.DataFrame:
    """A row per document, statistic, group and point: its `value`, and the share of unlikely."""
    found = unlikely_components(
        bridge,
        [document["tokens"] for document in documents],
        below=below,
        directions=directions,
        seed=seed,
        max_tokens=max(len(document["tokens"]) for document in documents),
        progress=False,
    )
    names = pd.MultiIndex.from_product(
        [MEASURES, GROUPS, found.points, [document["cluster"] for document in documents]],
        names=["statistic", "group", "point", "document"],
    )
    shares = np.broadcast_to(found.unlikely[0], found.values.shape)
    columns = {"value": found.values.ravel(), "unlikely": shares.ravel()}
    return pd.DataFrame(columns, index=names).reset_index()
