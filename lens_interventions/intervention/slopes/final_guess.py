"""The model's own final guess, as a source that slopes can be compared with.

A patch alone cannot write it, because it is known only after a run of the whole model.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Int
from torch import Tensor

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

    reads_lens: ClassVar[bool] = False

    tokens: Int[Tensor, "batch pos"]

    def __call__(self, site: PatchSite) -> Int[Tensor, "batch pos"]:
        """The tokens at the site's positions."""
        return self.tokens.gather(1, site.position.clamp(min=0))


def source_of(name: str | SourceFunction) -> str | SourceFunction:
    """A source as `NextTokenPatch` takes it."""
    return final_guess if name == "final_guess" else name
