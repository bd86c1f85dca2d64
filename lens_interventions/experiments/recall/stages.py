"""The one stage, of one unit: fit the probe, and read other documents with it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ...fitting.embedding_basis import BasisKind, embedding_basis, require_basis
from ...fitting.input_probe import fit_input_probe
from ...fitting.input_reading import MEASURES, input_reading
from ...fitting.input_recovery import input_recovery
from ...materials.corpora import read_documents
from ..design.documents import document_beginnings
from ..engine.results import Tables
from ..engine.run import Stage
from ..engine.work_units import Unit, unit_kind
from .settings import RecallSettings

# The probe's own map at each point, as `InputRecovery` orders maps; and its accuracy.
_OWN, _FIRST = 0, 0

PARTS = ("more important half", "less important half")
"""Of the components of a basis."""

IMPORTANCE = "importance"
"""The measure of the rows that tell how much of the table of its basis a part holds."""


def plan(bridge: TransformerBridge, settings: RecallSettings, _rows: Tables) -> Sequence[Unit]:
    """The unit.

    Raises `RuntimeError` if a basis needs a package that is not installed.
    """
    for kind in settings.bases:
        require_basis(kind)
    read = document_beginnings(
        bridge,
        {source: read_documents(source) for source in settings.texts},
        documents=settings.documents,
        tokens=settings.document_tokens,
        seed=settings.seed,
    )
    read = [document for document in read if len(document["tokens"]) > 3]
    parameters = {
        "documents": read,
        "fitted": _fitted(bridge, settings, {document["cluster"] for document in read}),
        "window": settings.window,
        "bases": list(settings.bases),
        "seed": settings.seed,
    }
    return [Unit("recall", "probe", measure_recall, parameters)]


STAGES: dict[str, Stage] = {"probe": plan}


def _fitted(bridge: TransformerBridge, settings: RecallSettings, read: set[str]) -> list[list[int]]:
    """Beginnings of the documents that are not read, as many as there is room for."""
    found = []
    for source in settings.fitted_texts:
        documents = read_documents(source)
        left = settings.fitted_tokens
        for document in document_beginnings(
            bridge,
            {source: documents},
            documents=len(documents),
            tokens=settings.window,
            seed=settings.seed + 1,
        ):
            if document["cluster"] not in read and left > 0:
                found.append(document["tokens"])
                left -= len(document["tokens"])
    return found


@unit_kind("recall of the input")
def measure_recall(
    bridge: TransformerBridge,
    documents: Sequence[Mapping[str, Any]],
    fitted: Sequence[Sequence[int]],
    window: int,
    bases: Sequence[BasisKind],
    seed: int,
) -> pd.DataFrame:
    """Rows by document, point, measure, basis and part, each a `total` over a `count`.

    `recovered` counts the tokens that the point's own map ranks first, by how often it was fitted
    to the token; `input`, `estimate` and `stream` are shares of the two halves of each
    basis.
    """
    probe = fit_input_probe(bridge, list(fitted), window=window, progress=False)
    texts, names = [d["tokens"] for d in documents], [d["cluster"] for d in documents]
    recovery = input_recovery(bridge, probe, texts, progress=False)
    totals = recovery.totals[_FIRST, _OWN]
    index = pd.MultiIndex.from_product(
        [probe.points, recovery.rarity, names], names=["point", "part", "document"]
    )
    counts = np.broadcast_to(recovery.counts, totals.shape)
    columns = {"total": totals.ravel(), "count": counts.ravel()}
    frames = [
        pd.DataFrame(columns, index=index).reset_index().assign(measure="recovered", basis="")
    ]
    for kind in bases:
        basis = embedding_basis(bridge, kind, seed=seed)
        reading = input_reading(bridge, probe, texts, basis, progress=False)
        half = len(basis.directions) // 2
        for part, bounds in zip(PARTS, ((0, half), (half, len(basis.directions))), strict=True):
            index = pd.MultiIndex.from_product(
                [MEASURES, probe.points, names], names=["measure", "point", "document"]
            )
            shares = pd.DataFrame({"total": reading.part(*bounds).ravel()}, index=index)
            importance = float(basis.importance[slice(*bounds)].sum())
            frames += [
                rows.assign(count=1, basis=kind, part=part)
                for rows in (
                    shares.reset_index(),
                    pd.DataFrame(
                        {
                            "measure": IMPORTANCE,
                            "point": probe.points[0],
                            "document": "",
                            "total": [importance],
                        }
                    ),
                )
            ]
    return pd.concat(frames, ignore_index=True)
