"""The stages: slopes, curvatures, patched runs, and how a write could be read and learned."""

from collections.abc import Iterable, Sequence
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
from ..design.setting_checks import require_room
from ..engine.results import Tables
from ..engine.run import Stage
from ..engine.work_units import Unit
from .ceiling import measure_ceiling
from .heads import measure_heads
from .measurements import measure_patched, measure_slopes
from .prediction import chosen_cells, predicted
from .rescue import measure_rescue
from .settings import COPIES, NATURAL, SlopesSettings


def materials_of(
    bridge: TransformerBridge, settings: SlopesSettings
) -> dict[str, list[TokenSequence]]:
    """The sequences of each material, by its name.

    Raises `ValueError` if a half has none, or the model cannot read so many tokens at once.
    """
    found = _by_text(text_sequences(bridge, settings.material))
    found[COPIES] = induction_sequences(bridge, settings.material)
    require_room(bridge, ceiling_tokens=settings.ceiling_tokens)
    for name, sequences in found.items():
        require_both_halves(sequences, name)
    return found


def scope_of(material: str) -> str:
    """The predictions of a material that count; in copies, those that complete an earlier pair."""
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
    """Losses at a step up and a step down at some layers, on the first texts that choose.

    The slope is known, so these two losses give the curvature. A product with the Hessian takes
    about as long, and needs the graph of all blocks.
    """
    steps = [settings.step, -settings.step]
    return [
        Unit(
            "curvatures",
            f"{place:02d}-layer{layer:03d}",
            measure_patched,
            {
                **_common(material, _first(sequences, SELECTION, settings.curved_texts), settings),
                "layer": layer,
                "strengths": dict.fromkeys(settings.curved_sources, steps),
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
                "strengths": {source: [strength] for source, strength in strengths.items()},
                "mode": settings.modes[0],
            },
        )
        for place, (material, sequences) in enumerate(materials_of(bridge, settings).items())
        for layer, strengths in chosen[material].items()
        for number, part in enumerate(batches(sequences, REPORT, settings.batch))
    ]


def rescue_stage(
    bridge: TransformerBridge, settings: SlopesSettings, _rows: Tables
) -> Sequence[Unit]:
    """Losses with tokens hidden in their own places, at some layers and strengths."""
    middle = settings.rescue_strengths[len(settings.rescue_strengths) // 2]
    ways = [(strength, ["both"], settings.rescue_sources) for strength in settings.rescue_strengths]
    ways.append((middle, ["keys", "values"], settings.rescue_sources[:2]))
    return [
        Unit(
            "rescue",
            f"{place:02d}-{number:02d}",
            measure_rescue,
            {
                **_common(material, sequences, settings, "copyable"),
                "layers": settings.rescue_layers(int(bridge.cfg.n_layers)),
                "strength": strength,
                "sources": list(sources),
                "through": through,
                "mode": settings.modes[0],
            },
        )
        for place, (material, sequences) in enumerate(_of_mechanism(bridge, settings).items())
        for number, (strength, through, sources) in enumerate(ways)
    ]


def head_stage(
    bridge: TransformerBridge, settings: SlopesSettings, _rows: Tables
) -> Sequence[Unit]:
    """Slopes by head at all layers."""
    return [
        Unit(
            "heads",
            f"{place:02d}",
            measure_heads,
            {
                **_common(material, sequences, settings, "copyable"),
                "sources": list(settings.head_sources),
                "mode": settings.modes[0],
            },
        )
        for place, (material, sequences) in enumerate(_of_mechanism(bridge, settings).items())
    ]


def ceiling_stage(
    bridge: TransformerBridge, settings: SlopesSettings, _rows: Tables
) -> Sequence[Unit]:
    """Linear writes, fitted to one half of longer texts, and their slopes on the other."""
    sequences = _long_texts(bridge, settings)
    held_out = [sequence for sequence in sequences if sequence.half == REPORT]
    curved = [
        held_out.index(sequence)
        for of_text in _by_text(held_out).values()
        for sequence in of_text[: settings.curved_texts]
    ]
    return [
        Unit(
            "ceiling",
            "linear",
            measure_ceiling,
            {
                "texts": [each.values() for each in sequences if each.half == SELECTION],
                "held_out": [each.values() for each in held_out],
                "curved": curved,
                "layers": settings.ceiling_layers(int(bridge.cfg.n_layers)),
                "step": settings.step,
            },
        )
    ]


STAGES: dict[str, Stage] = {
    "slopes": slopes_stage,
    "curvatures": curvature_stage,
    "patched runs": patched_stage,
    "rescue": rescue_stage,
    "heads": head_stage,
    "linear ceiling": ceiling_stage,
}


def _of_mechanism(
    bridge: TransformerBridge, settings: SlopesSettings
) -> dict[str, list[TokenSequence]]:
    """Natural text, as much of each kind, and copies, of the report half."""
    by_text = _by_text(each for each in _long_texts(bridge, settings) if each.half == REPORT)
    share = -(-settings.mechanism_texts // len(by_text))
    natural = [sequence for each in by_text.values() for sequence in each[:share]]
    copies = induction_sequences(bridge, settings.material)
    return {
        NATURAL: natural[: settings.mechanism_texts],
        COPIES: _first(copies, REPORT, settings.mechanism_texts),
    }


def _long_texts(bridge: TransformerBridge, settings: SlopesSettings) -> list[TokenSequence]:
    sequences = text_sequences(bridge, settings.long_material)
    for name, of_text in _by_text(sequences).items():
        require_both_halves(of_text, name)
    return sequences


def _by_text(sequences: Iterable[TokenSequence]) -> dict[str, list[TokenSequence]]:
    """Natural text by its source, whose name is the tag."""
    found: dict[str, list[TokenSequence]] = {}
    for sequence in sequences:
        found.setdefault(sequence.tags, []).append(sequence)
    return found


def _common(
    material: str,
    sequences: Sequence[TokenSequence],
    settings: SlopesSettings,
    scope: str | None = None,
) -> dict[str, Any]:
    return {
        "material": material,
        "scope": scope or scope_of(material),
        "sequences": [sequence.values() for sequence in sequences],
        "embedding": settings.embedding,
        "seed": settings.seed,
    }


def _first(sequences: Sequence[TokenSequence], half: str, n: int) -> list[TokenSequence]:
    return [sequence for sequence in sequences if sequence.half == half][:n]
