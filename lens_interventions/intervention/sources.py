"""The registry of sources: the true next token, and controls that carry no news of it.

A source is a function of a `PatchSite`. It returns token ids `[batch, pos]`, with -1 where it has
nothing to write and the position stays as it is, or vectors `[batch, pos, d_model]`. Each row
depends on that row alone: on `x[0..i+1]`, `r[l][i]`, i and the seeds. An attribute `reads_lens`
that is False says that it never asks the site for the lens, which saves its products.

To add a source, write its function and its entry in `SOURCES`. Patches, trainings, figures, the
command line and the experiments on copying, loops and learned writes read the registry. The other
experiments name their sources in their settings.
"""

# The command line lists the names in its help, and must not load torch for that.
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..model.argument_types import require_whole_numbers

if TYPE_CHECKING:
    from torch import Tensor

    from .site import PatchSite

SourceFunction = Callable[["PatchSite"], "Tensor"]

Role = Literal["true", "control", "bare", "no news"]
Draws = Literal["nothing", "a position", "a token", "a direction"]


@dataclass(frozen=True)
class Source:
    """A source by name.

    Attributes:
        name: what patches, trainings and tables call it.
        words: what figures call it.
        function: what it writes.
        role: "true" for the token that really comes next; "control" for one that is written at the
            same strength and knows nothing of that token; "bare" for a control that is only written
            as it is, and that the experiment with learned writes does not train; "no news" for no
            token at all, so that a learned write learns only its bias.
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


def minus_controls(of: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """By name of a control, the true source's value minus the control's; none without the true."""
    if "true" in of:
        yield from ((name, of["true"] - value) for name, value in of.items() if name != "true")


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


def previous(site: "PatchSite") -> "Tensor":
    """The token before, `x[i-1]`, `[batch, pos]`. Position 0 has none and is not patched."""
    return site.token_at(site.position - 1)


def average(site: "PatchSite") -> "Tensor":
    """The mean embedding of the vocabulary, as long as the true next token's embedding.

    `[batch, pos, d_model]`, one direction for all positions and texts. It is what all tokens have
    in common, so every other source writes it too, whichever token it names, unless embeddings are
    centred; then this source writes zeros.
    """
    vector = site.embedding.average
    length = site.embedding(site.next_tokens).norm(dim=-1, keepdim=True)
    own = vector.norm()
    return vector / own.where(own > 0, 1) * length


def zero(site: "PatchSite") -> "Tensor":
    """Vectors of zeros, `[batch, pos, d_model]`.

    In mode interpolate the residual shrinks, in mode correct the layer's guess is taken out and
    nothing put in, and in mode add nothing changes. A learned write adds only its bias.
    """
    return site.resid.new_zeros(site.resid.shape)


@dataclass(frozen=True)
class BackPatch:
    """A source: the position's own residual of another layer, from a run without a patch.

    Written into a lower layer, it is the back-patching of Biran et al. 2024, "Hopping Too Late": it
    writes the model's own state at the position instead of a token. It needs an extra run without
    the patch.

    Attributes:
        layer: the layer of the residual `r[layer]`; the number of blocks stands for the last
            residual, which is unembedded.

    Raises `TypeError` if `layer` is not a whole number.
    """

    reads_lens: ClassVar[bool] = False

    layer: int

    def __post_init__(self) -> None:
        require_whole_numbers(layer=self.layer)

    def __call__(self, site: "PatchSite") -> "Tensor":
        """`r[layer]` at the site's positions, `[batch, pos, d_model]`."""
        return site.unpatched_residual(self.layer)


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source("true", "true next token", true, role="true", reads_lens=False),
        Source("random", "random token", random, draws="a token", reads_lens=False),
        Source("shuffled", "shuffled next token", shuffled, draws="a position", reads_lens=False),
        Source("current", "current token", current, reads_lens=False),
        Source("guess", "the layer's guess", guess),
        Source("direction", "random direction", direction, draws="a direction", reads_lens=False),
        Source("previous", "previous token", previous, role="bare", reads_lens=False),
        Source("average", "average token", average, role="bare", reads_lens=False),
        Source("zero", "no token", zero, role="no news", reads_lens=False),
    )
}
"""Every source by its name."""


def source_names(*roles: Role) -> tuple[str, ...]:
    """Names of the sources, or of those that have one of these roles, in the registry's order."""
    return tuple(name for name, source in SOURCES.items() if not roles or source.role in roles)


def control_names() -> tuple[str, ...]:
    """Names of everything that is written to be compared with the true source."""
    return source_names("control", "bare", "no news")
