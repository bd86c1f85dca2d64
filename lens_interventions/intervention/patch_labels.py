"""Patches in a few words, to tell them apart."""

from collections.abc import Collection, Sequence
from dataclasses import fields

from ..drawing.labels import shorten
from .names import LONGEST, short_name
from .patch import NextTokenPatch
from .patch_fields import differing

_FIELDS = tuple(field.name for field in fields(NextTokenPatch))
# What names a patch that is alone.
_MAIN = ("layer", "mode", "strength", "source")


def patch_labels(
    patches: Sequence[NextTokenPatch | None], *, but: Collection[str] = ()
) -> list[str]:
    """A label of each patch: the fields in which some of the patches differ.

    None is the model without a patch. Fields in `but` are left out. If two would have the same
    label, all get their numbers too.
    """
    real = [patch for patch in patches if patch is not None]
    fields_told = [name for name in _FIELDS if name not in but]
    told = [
        name for name in fields_told if any(differing(real[0], each, [name]) for each in real[1:])
    ]
    told = told or [name for name in _MAIN if name not in but]
    labels = [
        "no patch" if patch is None else ", ".join(_said(patch, name) for name in told)
        for patch in patches
    ]
    if len(set(labels)) < len(labels):
        labels = [f"{number}: {label}" for number, label in enumerate(labels)]
    return labels


def _said(patch: NextTokenPatch, name: str) -> str:
    value = getattr(patch, name)
    if name in ("source", "mode"):
        return short_name(value)
    if name == "lens" and value is not None:
        value = type(value).__name__
    said = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{name.replace('_', ' ')} {shorten(said, LONGEST)}"
