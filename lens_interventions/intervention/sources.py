"""The registry of what a patch writes: the true next token, and controls that carry no news of it.

A source is a function of a `PatchSite`. It returns token ids `[batch, pos]`, -1 where it has
nothing to write and the position stays as it is, or vectors `[batch, pos, d_model]`. It is a
function of each row alone: of `x[0..i+1]`, `r[l][i]`, i and the seeds.

To add a source, write its function and its entry in `SOURCES`. Patches, trainings, experiments,
figures and the command line read the registry when they need it.
"""

# The command line lists the names in its help, where loading torch would take seconds.
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from .site import PatchSite

SourceFunction = Callable[["PatchSite"], "Tensor"]

Role = Literal["true", "control", "no news"]
Draws = Literal["nothing", "a position", "a token", "a direction"]


@dataclass(frozen=True)
class Source:
    """A source by name.

    Attributes:
        name: what patches, trainings and tables call it.
        words: what figures call it.
        function: what it writes.
        role: "true" for the token that really comes next; "control" for what is written at the
            same strength and knows nothing of that token; "no news" for no token at all, with which
            only a learned write can be trained, and then learns a bias.
        draws: what it draws at random at each position.
        reads_lens: whether it asks the site for the lens, which costs two products with the
            vocabulary.
    """

    name: str
    words: str
    function: SourceFunction
    role: Role = "control"
    draws: Draws = "nothing"
    reads_lens: bool = True


def true(site: "PatchSite") -> "Tensor":
    """The token that really comes next, `x[i+1]`, `[batch, pos]`."""
    return site.next_tokens


def random(site: "PatchSite") -> "Tensor":
    """A token drawn uniformly from the vocabulary, `[batch, pos]`."""
    return site.draw_integers(len(site.embedding.weight))


def shuffled(site: "PatchSite") -> "Tensor":
    """The next token of an earlier position, `x[j+1]` with j drawn uniformly from 0..i-1.

    `[batch, pos]`; position 0 has no earlier one and is not patched.
    """
    earlier = site.draw_integers(site.position.clamp(min=1))
    return site.token_at(earlier + 1).where(site.position > 0, -1)


def current(site: "PatchSite") -> "Tensor":
    """The token at the position itself, `x[i]`, `[batch, pos]`."""
    return site.current_tokens


def guess(site: "PatchSite") -> "Tensor":
    """The layer's own top guess, through the lens at that layer, `[batch, pos]`."""
    return site.log_probs.argmax(-1)


def direction(site: "PatchSite") -> "Tensor":
    """A random Gaussian direction, as long as the true next token's embedding.

    `[batch, pos, d_model]`.
    """
    vectors = site.draw_directions()
    length = site.embedding(site.next_tokens).norm(dim=-1, keepdim=True)
    return vectors / vectors.norm(dim=-1, keepdim=True) * length


def constant(site: "PatchSite") -> "Tensor":
    """Vectors of zeros, `[batch, pos, d_model]`: what is left of a learned write is its bias."""
    return site.resid.new_zeros(site.resid.shape)


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source("true", "true next token", true, role="true", reads_lens=False),
        Source("random", "random token", random, draws="a token", reads_lens=False),
        Source("shuffled", "shuffled next token", shuffled, draws="a position", reads_lens=False),
        Source("current", "current token", current, reads_lens=False),
        Source("guess", "the layer's guess", guess),
        Source("direction", "random direction", direction, draws="a direction", reads_lens=False),
        Source("constant", "no token", constant, role="no news", reads_lens=False),
    )
}
"""Every source by its name."""


def source_names(*roles: Role) -> tuple[str, ...]:
    """Names of the sources that have one of these roles, in the order of the registry."""
    return tuple(name for name, source in SOURCES.items() if source.role in roles)


def patch_sources() -> tuple[str, ...]:
    """Names of the sources that a patch can have without a learned write."""
    return source_names("true", "control")
