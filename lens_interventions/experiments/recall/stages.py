"""The one stage: the tokens that a probe recovers, and where in each basis it reads them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ...fitting.embedding_basis import BasisKind, embedding_basis, require_basis
from ...fitting.input_probe import InputProbe, fit_input_probe
from ...fitting.input_reading import MEASURES, input_reading
from ...fitting.input_recovery import input_recovery
from ...materials.corpora import read_documents
from ...model.fingerprint import model_hash
from ..design.documents import (
    cluster_of,
    document_beginnings,
    documents_with_components,
    unrelated_documents,
)
from ..engine.json_values import digest
from ..engine.results import Tables
from ..engine.run import Stage
from ..engine.work_units import Unit, unit_kind
from .settings import RecallSettings

# Places of the probe's own map, the only one at each point, and of its accuracy.
_OWN, _FIRST = 0, 0

# Documents in a unit, which takes about a minute with a vocabulary of 262,144.
_BATCH = 8

PARTS = ("more important half", "less important half")
"""Of the components of a basis."""

IMPORTANCE = "importance"
"""The measure of the rows that tell how much of the table of its basis a part holds."""


def plan(bridge: TransformerBridge, settings: RecallSettings, _rows: Tables) -> Sequence[Unit]:
    """Units that recover the input of some documents each, and one that reads all for each basis.

    Raises `RuntimeError` if a basis needs a package that is not installed.
    """
    for kind in settings.bases:
        require_basis(kind)
    read = documents_with_components(
        bridge,
        settings.texts,
        documents=settings.documents,
        tokens=settings.document_tokens,
        seed=settings.seed,
        least=4,
    )
    probe = {
        "fitted": _fitted(bridge, settings, {document["cluster"] for document in read}),
        "window": settings.window,
    }
    return [
        *(
            Unit(
                "recall",
                f"recovered-{start:03d}",
                measure_recovery,
                {"documents": read[start : start + _BATCH], **probe},
            )
            for start in range(0, len(read), _BATCH)
        ),
        *(
            Unit(
                "recall",
                f"read-{kind}",
                measure_reading,
                {"documents": read, **probe, "kind": kind, "seed": settings.seed},
            )
            for kind in settings.bases
        ),
    ]


STAGES: dict[str, Stage] = {"probe": plan}


def _fitted(bridge: TransformerBridge, settings: RecallSettings, read: set[str]) -> list[list[int]]:
    """Beginnings of documents that share no passage with those read, up to the settings' limit."""
    apart = {
        cluster_of(source, document)
        for source, document in unrelated_documents([*settings.fitted_texts, *settings.texts], read)
    }
    found = []
    for source in settings.fitted_texts:
        documents = read_documents(source)
        left = settings.fitted_tokens
        for document in document_beginnings(
            bridge,
            {source: documents},
            documents=len(documents),
            tokens=min(settings.window, int(bridge.cfg.n_ctx)),
            seed=settings.seed + 1,
        ):
            if document["cluster"] in apart and left > 0:
                found.append(document["tokens"])
                left -= len(document["tokens"])
    return found


# One at most, by the model and the texts.
_probes: dict[tuple[str, str], InputProbe] = {}


def forget_probe() -> None:
    """Free the probe that the units share."""
    _probes.clear()


@unit_kind("recovery of the input")
def measure_recovery(
    bridge: TransformerBridge,
    documents: Sequence[Mapping[str, Any]],
    fitted: Sequence[Sequence[int]],
    window: int,
) -> pd.DataFrame:
    """Rows by point, part and document: how many tokens the point's map ranks first.

    Parts are bins by how often the map was fitted to the token.
    """
    probe = _probe(bridge, fitted, window)
    texts, names = [d["tokens"] for d in documents], [d["cluster"] for d in documents]
    longest = max(map(len, texts))
    recovery = input_recovery(
        bridge, probe, texts, maps=("own",), max_tokens=longest, progress=False
    )
    totals = recovery.totals[_FIRST, _OWN]
    index = pd.MultiIndex.from_product(
        [probe.points, recovery.rarity, names], names=["point", "part", "document"]
    )
    counts = np.broadcast_to(recovery.counts, totals.shape)
    columns = {"total": totals.ravel(), "count": counts.ravel()}
    return pd.DataFrame(columns, index=index).reset_index().assign(measure="recovered", basis="")


@unit_kind("reading of the input")
def measure_reading(
    bridge: TransformerBridge,
    documents: Sequence[Mapping[str, Any]],
    fitted: Sequence[Sequence[int]],
    window: int,
    kind: BasisKind,
    seed: int,
) -> pd.DataFrame:
    """Rows by measure, point, document and half of a basis: its share, as a `total` over 1.

    There is also a row for each half with its share of the table of the basis, `IMPORTANCE`.
    """
    probe = _probe(bridge, fitted, window)
    texts, names = [d["tokens"] for d in documents], [d["cluster"] for d in documents]
    basis = embedding_basis(bridge, kind, seed=seed)
    longest = max(map(len, texts))
    reading = input_reading(bridge, probe, texts, basis, max_tokens=longest, progress=False)
    half = len(basis.directions) // 2
    index = pd.MultiIndex.from_product(
        [MEASURES, probe.points, names], names=["measure", "point", "document"]
    )
    frames = []
    for part, bounds in zip(PARTS, ((0, half), (half, len(basis.directions))), strict=True):
        shares = pd.DataFrame({"total": reading.part(*bounds).ravel()}, index=index).reset_index()
        importance = {
            "measure": IMPORTANCE,
            "point": probe.points[0],
            "document": "",
            "total": [float(basis.importance[slice(*bounds)].sum())],
        }
        frames += [rows.assign(part=part) for rows in (shares, pd.DataFrame(importance))]
    return pd.concat(frames, ignore_index=True).assign(count=1, basis=kind)


def _probe(bridge: TransformerBridge, fitted: Sequence[Sequence[int]], window: int) -> InputProbe:
    """The probe, which the units of a process share, because it is too large for rows."""
    settings = (model_hash(bridge), digest([fitted, window]))
    probe = _probes.get(settings)
    if probe is None:
        probe = fit_input_probe(bridge, list(fitted), window=window, progress=False)
        _probes.clear()
        _probes[settings] = probe
    return probe
