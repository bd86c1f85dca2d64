"""The stages: slopes everywhere, curvatures on the selection half, patched runs on the other."""

from collections.abc import Sequence
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from ..design.material import induction_sequences, text_sequences
from ..design.sequences import (
    REPORT,
    SELECTION,
    TokenSequence,
    batches,
    require_both_halves,
)
from ..engine.results import Tables
from ..engine.run import Stage
from ..engine.work_units import Unit
from .measurements import measure_curvature, measure_patched, measure_slopes
from .prediction import chosen_cells, predicted
from .settings import COPIES, SlopesSettings


def materials_of(
    bridge: TransformerBridge, settings: SlopesSettings
) -> dict[str, list[TokenSequence]]:
    """The sequences of each material, by its name.

    Raises `ValueError` if a half has none, or the model cannot read so many tokens at once.
    """
    found: dict[str, list[TokenSequence]] = {}
    for sequence in text_sequences(bridge, settings.material):
        found.setdefault(sequence.tags, []).append(sequence)
    found[COPIES] = induction_sequences(bridge, settings.material)
    context = int(bridge.cfg.n_ctx)
    for name, sequences in found.items():
        require_both_halves(sequences, name)
        longest = max(len(sequence.tokens) for sequence in sequences)
        if longest > context:
            raise ValueError(
                f"{name} has texts of {longest} tokens and the model reads {context}: make "
                "document_tokens and induction_length smaller"
            )
    return found


def scope_of(material: str) -> str:
    """Which predictions of a material count; of copies, those that complete an earlier pair."""
    return "copyable" if material == COPIES else "all"


def slopes_stage(
    bridge: TransformerBridge, settings: SlopesSettings, _rows: Tables
) -> Sequence[Unit]:
    """Slopes of every text of both halves."""
    return [
        Unit(
            "slopes",
            f"{place:02d}-{half}-{number:03d}",
            measure_slopes,
            {
                **_common(material, part, settings),
                "sources": list(settings.sources),
                "modes": list(settings.modes),
            },
        )
        for place, (material, sequences) in enumerate(materials_of(bridge, settings).items())
        for half in (SELECTION, REPORT)
        for number, part in enumerate(batches(sequences, half, settings.batch))
    ]


def curvature_stage(
    bridge: TransformerBridge, settings: SlopesSettings, _rows: Tables
) -> Sequence[Unit]:
    """Curvatures at some layers, on the first texts of the selection half."""
    return [
        Unit(
            "curvatures",
            f"{place:02d}-layer{layer:03d}",
            measure_curvature,
            {
                **_common(material, _first(sequences, settings), settings),
                "layer": layer,
                "sources": list(settings.curved_sources),
                "mode": settings.modes[0],
            },
        )
        for place, (material, sequences) in enumerate(materials_of(bridge, settings).items())
        for layer in settings.curved_layers(int(bridge.cfg.n_layers))
    ]


def patched_stage(
    bridge: TransformerBridge, settings: SlopesSettings, rows: Tables
) -> Sequence[Unit]:
    """Patched runs of the report half, at the layers and strengths that the other half chose."""
    cells = predicted(settings, rows["slopes"], rows["curvatures"])
    chosen = chosen_cells(settings, cells)
    return [
        Unit(
            "patched",
            f"{place:02d}-layer{layer:03d}-{number:03d}",
            measure_patched,
            {
                **_common(material, part, settings),
                "layer": layer,
                "strengths": strengths,
                "mode": settings.modes[0],
            },
        )
        for place, (material, sequences) in enumerate(materials_of(bridge, settings).items())
        for layer, strengths in chosen[material].items()
        for number, part in enumerate(batches(sequences, REPORT, settings.batch))
    ]


STAGES: dict[str, Stage] = {
    "slopes": slopes_stage,
    "curvatures": curvature_stage,
    "patched runs": patched_stage,
}


def _common(
    material: str, sequences: Sequence[TokenSequence], settings: SlopesSettings
) -> dict[str, Any]:
    return {
        "material": material,
        "scope": scope_of(material),
        "sequences": [sequence.values() for sequence in sequences],
        "seed": settings.seed,
    }


def _first(sequences: Sequence[TokenSequence], settings: SlopesSettings) -> list[TokenSequence]:
    chosen = [sequence for sequence in sequences if sequence.half == SELECTION]
    return chosen[: settings.curved_texts]
