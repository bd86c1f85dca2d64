"""The directions in which patches move rows of the residual stream, per unit of strength."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...model.precision import is_half
from ...model.readout import LOGIT_ROWS
from ..bound_patch import BoundPatch, require_shape
from ..known_text import KnownText
from ..modes import Mode, Rows, Scales, add, correct, interpolate
from ..site import PatchSite


def directions(
    bounds: Sequence[BoundPatch],
    resid: Float[Tensor, "batch pos d_model"],
    *,
    layer: int,
    position: Int[Tensor, "batch pos"],
    text: KnownText,
) -> Iterator[tuple[Int[Tensor, " part"], list[Float[Tensor, "batch part d_model"]]]]:
    """The derivative of each patched row at strength 0, one part of the columns at a time.

    It is zero where a patch does not change the row. Each part of the columns comes with a
    direction for each patch. Patches with the same embedding and source share their vectors, so
    the rest must be the same for all: layers, positions, window, scale, gate, seed and lens. Their
    strengths are ignored.
    """
    columns = torch.arange(resid.shape[1], device=resid.device)
    asks = any(bound.patch.reads_lens for bound in bounds)
    for part in columns.split(max(1, LOGIT_ROWS // len(resid)) if asks else len(columns)):
        yield (
            part,
            list(
                _at_rows(bounds, resid[:, part], layer=layer, position=position[:, part], text=text)
            ),
        )


def _at_rows(
    bounds: Sequence[BoundPatch],
    resid: Float[Tensor, "batch part d_model"],
    *,
    layer: int,
    position: Int[Tensor, "batch part"],
    text: KnownText,
) -> Iterator[Float[Tensor, "batch part d_model"]]:
    sites: dict[str, PatchSite] = {}
    written: dict[tuple, tuple[Tensor, Tensor, Tensor]] = {}
    logits: list[Tensor] = []

    def lens(rows: Tensor) -> Tensor:
        # Sites differ in their embeddings alone.
        if not (rows is resid or torch.equal(rows, resid)):
            return bounds[0].lens_at(layer)(rows)
        if not logits:
            logits.append(bounds[0].lens_at(layer)(rows))
        # A function of the user gets copies of the rows, and may write into their logits.
        return logits[0] if rows is resid else logits[0].clone()

    for bound in bounds:
        patch = bound.patch
        site = sites.setdefault(
            patch.embedding,
            PatchSite(
                layer=layer,
                resid=resid,
                position=position,
                embedding=bound.embeddings[layer],
                lens=lens,
                seed=patch.seed,
                text=text,
            ),
        )
        key = (
            patch.embedding,
            # A function may not be hashable.
            patch.source if isinstance(patch.source, str) else id(patch.source),
            bound.moves_as_the_truth,
            bound.writes_everywhere,
        )
        if key not in written:
            # Every row as the prediction right after it sees it, since that is within any window.
            written[key] = bound.written(site, bound.in_scope(position, text, position + 1))
        vectors, scale, active = written[key]
        moved = derivative(bound.mode, site, vectors, scale).to(resid.dtype)
        yield moved.masked_fill(~active[..., None], 0)


def derivative(mode: Mode, site: PatchSite, e: Rows, s: Scales) -> Rows:
    """d(patched rows) / d(strength) at strength 0.

    For a mode that the user wrote, central differences of two steps are extrapolated. That is exact
    if the mode is a polynomial of degree 4 or less in the strength; otherwise the error falls with
    the fourth power of the step.
    """
    if mode is add:
        return s * e
    if mode is interpolate:
        return s * e - site.resid
    if mode is correct:
        return s * (e - site.expected_embedding)
    if is_half(site.resid.dtype):
        # So small a step of a half-precision row would be lost in rounding.
        site = _widened(site)
    double = site.resid.dtype == torch.float64
    step = 2.0**-9 if double else 2.0**-5

    def moved(h: float) -> Tensor:
        # A mode may write into all that it gets, and other patches get the same. It asks the lens
        # itself, since it may have written into the rows before.
        return mode(replace(site).copy(), e.clone(), s.clone(), h)

    def difference(h: float) -> Tensor:
        up, down = moved(h), moved(-h)
        require_shape("mode", mode, up, site.resid.shape)
        return (up - down) / (2 * h)

    return (4 * difference(step) - difference(2 * step)) / 3


def _widened(site: PatchSite) -> PatchSite:
    """The site with its rows in float32; the lens reads them in their own dtype."""
    own = site.resid.dtype
    return replace(site, resid=site.resid.float(), lens=lambda rows: site.lens(rows.to(own)))
