"""Patches in a few words, to tell them apart."""

from collections.abc import Sequence
from dataclasses import fields

from ..drawing.labels import shorten
from .names import name_of
from .patch import NextTokenPatch
from .patch_fields import differing

_FIELDS = tuple(field.name for field in fields(NextTokenPatch))
# Characters of a value, such as a list of positions or a source that has no name.
_LONGEST = 30
# What names a patch that is alone.
_MAIN = ("layer", "mode", "strength", "source")


def patch_labels(patches: Sequence[NextTokenPatch | None]) -> list[str]:
    """A label of each patch: the fields in which some of the patches differ.

    None is the model without a patch. If two would have the same label, all get their numbers too.
    """
    real = [patch for patch in patches if patch is not None]
    told = [name for name in _FIELDS if any(differing(real[0], each, [name]) for each in real[1:])]
    labels = [
        "no patch" if patch is None else ", ".join(_said(patch, name) for name in told or _MAIN)
        for patch in patches
    ]
    if len(set(labels)) < len(labels):
        labels = [f"{number}: {label}" for number, label in enumerate(labels)]
    return labels


def _said(patch: NextTokenPatch, name: str) -> str:
    value = getattr(patch, name)
    if name in ("source", "mode"):
        return shorten(name_of(value), _LONGEST)
    if name == "lens" and value is not None:
        value = type(value).__name__
    said = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{name.replace('_', ' ')} {shorten(said, _LONGEST)}"
