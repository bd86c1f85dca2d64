"""How the slopes experiment words and judges what it found."""

from collections.abc import Mapping
from typing import Any

from ...drawing.labels import signed
from ...measures.intervals import Interval
from ...measures.verdicts import verdict, visible_by_width
from ..engine.results import Finding
from .bounds import ENDS, MAX_T
from .settings import COPIES, SlopesSettings


def words(material: str) -> str:
    """A material in words."""
    if material == COPIES:
        return "second copies of random tokens"
    return material.replace("python_reference", "the Python reference").replace("_", " ")


def capital(text: str) -> str:
    """The text as a sentence begins."""
    return text[0].upper() + text[1:]


def said(row: Mapping[Any, Any], factor: float = 1.0) -> str:
    """An estimate with its interval, times a factor."""
    estimate, low, high = (signed(factor * row[end], 2) for end in ENDS)
    return f"{estimate} [{low}, {high}]"


def finding(
    question: str,
    interval: Interval,
    method: str,
    figure: str,
    material: str,
    settings: SlopesSettings,
) -> Finding:
    """A change of the loss on a material, judged."""
    judged = verdict(
        interval,
        smallest_effect=settings.smallest(material),
        lower_is_better=True,
        units="nats",
        # An interval that holds for a whole grid is wider than its lowest cell alone would have.
        smallest_visible=None if interval.method == MAX_T else visible_by_width(interval),
    )
    return Finding(question, judged, method, figure)
