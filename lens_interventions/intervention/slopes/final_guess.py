"""The model's own final guess, as a source that slopes can be compared with.

A patch alone cannot write it, because it is known only after a run of the whole model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Int
from torch import Tensor

from ..patch_fields import PatchFields
from ..site import PatchSite
from ..sources import SourceFunction


def final_guess(site: PatchSite) -> Int[Tensor, "batch pos"]:
    """A placeholder for the model's guess, which `KnownGuesses` writes.

    Raises `ValueError` whenever it is called: a patch alone cannot know the guess.
    """
    raise ValueError(
        f"the model's final guess is known only after a run; a patch at layer {site.layer} cannot "
        "write it"
    )


@dataclass(frozen=True, eq=False)
class KnownGuesses:
    """The source that writes these tokens, one for each position of the texts of a batch."""

    tokens: Int[Tensor, "batch pos"]

    def __call__(self, site: PatchSite) -> Int[Tensor, "batch pos"]:
        """The tokens at the site's positions."""
        return self.tokens.gather(1, site.position.clamp(min=0))


def source_of(name: str | SourceFunction) -> str | SourceFunction:
    """A source as `NextTokenPatch` takes it."""
    return final_guess if name == "final_guess" else name


def reads_lens(patch: PatchFields) -> bool:
    """Whether the patch reads the lens; unlike its own property, this knows the sources here."""
    source = patch.source
    never = source is final_guess or isinstance(source, KnownGuesses)
    return (replace(patch, source="true") if never else patch).reads_lens


def name_of(given: object) -> str:
    """The name of a source, mode, embedding or scope."""
    return given if isinstance(given, str) else getattr(given, "__name__", repr(given))


def function_names(kind: str, given: Sequence[object], known: Sequence[str]) -> tuple[str, ...]:
    """The names of sources, modes or scopes given by name or as functions.

    Raises `ValueError` for an unknown name, a name given twice, an empty list, or a string.
    """
    if isinstance(given, str):
        raise ValueError(f"{kind} must be a list, such as [{given!r}]; got {given!r}")
    names = []
    for each in given:
        if not (callable(each) or each in known):
            raise ValueError(
                f"{kind} must be some of {', '.join(map(repr, known))} or functions; got {each!r}"
            )
        names.append(name_of(each))
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{kind} must be one or more with different names; got {names}")
    return tuple(names)
