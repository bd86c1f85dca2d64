"""How a patch writes.

A mode is a function of a `PatchSite`, the vectors `e` to write `[batch, pos, d_model]`, their scale
`s` `[batch, pos, 1]` and the strength `a`. It returns the patched rows. A mode may be an object
with optional members: a method `require_fits(bridge, patch)`, which raises `ValueError` if the mode
must not be used there; an attribute `reads_lens`, which is False if the mode never asks the site
for the lens; and an attribute `writes_everywhere`, which is True if the mode also writes where the
source has no token. There `e` is an arbitrary embedding, which the mode must leave out.
"""

from collections.abc import Callable
from typing import TypeVar

from jaxtyping import Float
from torch import Tensor

from .site import PatchSite

Mode = Callable[[PatchSite, Tensor, Tensor, float], Tensor]
M = TypeVar("M", bound=Mode)
Rows = Float[Tensor, "batch pos d_model"]
Scales = Float[Tensor, "batch pos 1"]


def reads_no_lens(mode: M) -> M:
    """Say of a function that it never asks the site for the lens."""
    mode.reads_lens = False  # type: ignore[attr-defined]
    return mode


@reads_no_lens
def interpolate(site: PatchSite, e: Rows, s: Scales, a: float) -> Rows:
    """`(1 - a) r + a s e`; `a = 1` replaces the residual."""
    return (1 - a) * site.resid + a * s * e


@reads_no_lens
def add(site: PatchSite, e: Rows, s: Scales, a: float) -> Rows:
    """`r + a s e`."""
    return site.resid + a * s * e


def correct(site: PatchSite, e: Rows, s: Scales, a: float) -> Rows:
    """`r + a s (e - E_{v ~ lens} e(v))`: take out the layer's guess, put in what came.

    For the registry's controls, `s` makes the written vector as long as that of the true next
    token.
    """
    return site.resid + a * s * (e - site.expected_embedding)


MODES: dict[str, Mode] = {mode.__name__: mode for mode in (interpolate, add, correct)}
