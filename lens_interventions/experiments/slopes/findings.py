"""How the slopes experiment words what it asks and what it found."""

from collections.abc import Mapping
from typing import Any

from ...drawing.labels import signed
from ..design.contrasts import Contrast
from ..design.findings import Asked
from .bounds import ENDS
from .settings import COPIES, SlopesSettings


def words(material: str) -> str:
    """A material in words."""
    if material == COPIES:
        return "second copies of random tokens"
    return material.replace("python_reference", "the Python reference").replace("_", " ")


def said(row: Mapping[Any, Any], factor: float = 1.0) -> str:
    """An estimate with its interval, times a factor."""
    estimate, low, high = (signed(factor * row[end], 2) for end in ENDS)
    return f"{estimate} [{low}, {high}]"


def asked(
    question: str,
    contrast: Contrast,
    method: str,
    figure: str,
    material: str,
    settings: SlopesSettings,
) -> Asked:
    """A question about a change of the loss on a material."""
    return Asked(
        question,
        contrast,
        method,
        figure,
        settings.smallest(material),
        lower_is_better=True,
        units="nats",
    )
