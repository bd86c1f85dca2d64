"""Sources that slopes are compared with, beyond those that a patch knows by name.

`"previous"` is `x[i-1]`. `"constant"` is no token, vectors of zeros: in mode correct the layer's
guess is taken out and nothing put in, in mode interpolate the residual shrinks. `"final_guess"` is
the model's own top guess at the position, which takes a run of the whole model to know.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Int
from torch import Tensor

from ..patch_fields import PatchFields
from ..site import PatchSite
from ..sources import SOURCES, SourceFunction, patch_sources


def previous(site: PatchSite) -> Int[Tensor, "batch pos"]:
    """The token before, `x[i-1]`. Position 0 has none and is not patched."""
    return site.token_at(site.position - 1).where(site.position > 0, -1)


def final_guess(site: PatchSite) -> Int[Tensor, "batch pos"]:
    """Stands for the model's guess, which `KnownGuesses` writes.

    Raises `ValueError`: a patch alone cannot know it.
    """
    raise ValueError(
        f"the model's final guess is known after a run only, at layer {site.layer} a patch cannot "
        "write it"
    )


@dataclass(frozen=True, eq=False)
class KnownGuesses:
    """The source that writes these tokens, one for each position of the texts of a batch."""

    tokens: Int[Tensor, "batch pos"]

    def __call__(self, site: PatchSite) -> Int[Tensor, "batch pos"]:
        """The tokens at the site's positions."""
        return self.tokens.gather(1, site.position.clamp(min=0))


_OWN: dict[str, SourceFunction] = {
    "previous": previous,
    "final_guess": final_guess,
    # Patches know by name only what they can write without a learned matrix.
    **{name: SOURCES[name].function for name in SOURCES if name not in patch_sources()},
}
MEASURABLE = (*patch_sources(), *_OWN)


def source_of(name: str | SourceFunction) -> str | SourceFunction:
    """A source as `NextTokenPatch` takes it."""
    return _OWN.get(name, name) if isinstance(name, str) else name


def reads_lens(patch: PatchFields) -> bool:
    """`NextTokenPatch.reads_lens`, which takes functions for ones that may."""
    source = patch.source
    never = source in _OWN.values() or isinstance(source, KnownGuesses)
    return (replace(patch, source="true") if never else patch).reads_lens


def function_names(kind: str, given: Sequence[object], known: Sequence[str]) -> tuple[str, ...]:
    """The names of sources, modes or scopes given by name or as functions.

    Raises `ValueError` for an unknown name, two of one name, or none at all.
    """
    names = []
    for each in given:
        if not (callable(each) or each in known):
            raise ValueError(
                f"{kind} must be some of {', '.join(map(repr, known))} or functions; got {each!r}"
            )
        names.append(each if isinstance(each, str) else getattr(each, "__name__", repr(each)))
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{kind} must be one or more, each of another name; got {names}")
    return tuple(names)
