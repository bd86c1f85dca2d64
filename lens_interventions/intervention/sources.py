"""What a patch writes: the true next token, and the controls, which carry no news.

A source is a function of a `PatchSite`. It returns token ids `[batch, pos]`, -1 where it has
nothing to write and the position stays as it is, or vectors `[batch, pos, d_model]`. It is a
function of each row alone: of `x[0..i+1]`, `r[l][i]`, i and the seeds.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .site import PatchSite

Source = Callable[[PatchSite], Tensor]


def true(site: PatchSite) -> Int[Tensor, "batch pos"]:
    """The token that really comes next, `x[i+1]`."""
    return site.next_tokens


def random(site: PatchSite) -> Int[Tensor, "batch pos"]:
    """A token drawn uniformly from the vocabulary."""
    return site.draw_integers(len(site.embedding.weight))


def shuffled(site: PatchSite) -> Int[Tensor, "batch pos"]:
    """The next token of an earlier position, `x[j+1]` with j drawn uniformly from 0..i-1.

    Position 0 has no earlier one and is not patched.
    """
    earlier = site.draw_integers(site.position.clamp(min=1))
    return site.token_at(earlier + 1).where(site.position > 0, -1)


def current(site: PatchSite) -> Int[Tensor, "batch pos"]:
    """The token at the position itself, `x[i]`: no news."""
    return site.current_tokens


def guess(site: PatchSite) -> Int[Tensor, "batch pos"]:
    """The layer's own top guess, through the lens at that layer."""
    return site.log_probs.argmax(-1)


def direction(site: PatchSite) -> Float[Tensor, "batch pos d_model"]:
    """A random Gaussian direction, as long as the true next token's embedding."""
    vectors = site.draw_directions()
    length = site.embedding(site.next_tokens).norm(dim=-1, keepdim=True)
    return torch.nn.functional.normalize(vectors, dim=-1) * length


def constant(site: PatchSite) -> Float[Tensor, "batch pos d_model"]:
    """No token, vectors of zeros: what is left of a learned write is its bias."""
    return torch.zeros_like(site.resid)


SOURCES: dict[str, Source] = {
    source.__name__: source for source in (true, random, shuffled, current, guess, direction)
}
