"""The texts of a unit of work, their columns in its rows, and the patch that is written to them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge

from ...intervention.patch import NextTokenPatch
from ...intervention.slopes.final_guess import source_of

Sequences = Sequence[Mapping[str, Any]]


def tokens_of(bridge: TransformerBridge, sequences: Sequences) -> list[torch.Tensor]:
    """The tokens of each text, `[1, pos]`."""
    device = bridge.cfg.device
    return [torch.tensor([sequence["tokens"]], device=device) for sequence in sequences]


def longest(sequences: Sequences) -> int:
    """The length of the longest text, at which all texts are read."""
    return max(len(sequence["tokens"]) for sequence in sequences)


def named(material: str, sequence: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that identify the text of a row."""
    return {
        "material": material,
        "half": sequence["half"],
        "sequence": sequence["number"],
        "cluster": sequence["cluster"],
    }


def patch_of(
    sequences: Sequences,
    layers: int | Sequence[int],
    source: str,
    mode: str,
    strength: float,
    embedding: str,
    seed: int,
) -> NextTokenPatch:
    """A patch as long as the residual, which spares the first token as `slope_map` does."""
    return NextTokenPatch(
        layer=layers if isinstance(layers, int) else tuple(layers),
        strength=strength,
        source=source_of(source),
        mode=mode,  # type: ignore[arg-type]
        scale="norm",
        embedding=embedding,  # type: ignore[arg-type]
        positions=tuple(range(1, longest(sequences))),
        seed=seed,
    )
