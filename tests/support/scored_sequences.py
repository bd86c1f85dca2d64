"""Sequences and arms as units get them, and single numbers of their rows."""

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from lens_interventions.experiments.design.conditions import NO_PATCH, Arm, PatchSettings
from lens_interventions.experiments.design.sequences import TokenSequence

PATCH = PatchSettings()
ARMS = (
    NO_PATCH,
    Arm("true", 1, 0.3, "add"),
    Arm("shuffled", 1, 0.5, "interpolate"),
    Arm("direction", 2, 0.5, "add"),
    Arm("true", 1, 0.5, "add", "recent tokens"),
)


def text(number: int, tokens: Sequence[int], copied: int = 0, tags: str = "t") -> TokenSequence:
    return TokenSequence(number, "report", f"c{number}", tags, tuple(tokens), copied, f"f{number}")


def parameters(texts: Sequence[TokenSequence], arms: Sequence[Arm] = ARMS) -> dict:
    return {
        "sequences": [item.values() for item in texts],
        "arms": [arm.columns() for arm in arms],
        "patch": asdict(PATCH),
    }


def total(rows: pd.DataFrame, arm: Arm, sequence: int, measure: str, tag: str = "") -> float:
    chosen = rows[(rows["sequence"] == sequence) & (rows["measure"] == measure)]
    for name, value in arm.columns().items():
        chosen = chosen[chosen[name] == value]
    chosen = chosen[[tag in category.split() or not tag for category in chosen["category"]]]
    return float(chosen["total"].item())
