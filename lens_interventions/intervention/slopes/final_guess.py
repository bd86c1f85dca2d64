"""The model's own final guess, as a source that slopes can be compared with.

A patch alone cannot write it, because it is known only after a run of the whole model.
"""

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
