"""Second derivatives of the loss along the directions of patches."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...model.argument_types import require_numbers
from ...model.exclusive import exclusive
from ...model.precision import is_half
from ...model.product import product_dtype
from ...model.tokens import TextOrTokens
from ..known_text import KnownText
from ..losses.loss_sums import loss_sums
from ..losses.scopes import Scope, scopes_by_name
from ..patch import NextTokenPatch
from ..pieces import piece_length, require_patches
from ..text_sums import Reading, text_sums
from .curvature_result import Curvature


@exclusive
def curvature(
    bridge: TransformerBridge,
    texts: Iterable[TextOrTokens],
    patches: NextTokenPatch | Sequence[NextTokenPatch],
    *,
    step: float = 0.01,
    scopes: Sequence[str | Scope] = ("all",),
    max_length: int | None = None,
    prepend_bos: bool | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Curvature:
    """How the slope of the loss changes with a patch's strength, at strength 0.

    It is estimated from exact patched losses at strengths of plus and minus `step` and twice that.
    Central differences are extrapolated over the two steps, so the error falls with the fourth
    power of the step, and the difference between the two steps estimates it. In float32, with a few
    thousand predictions, rounding is far smaller. A product with the Hessian would need the graph
    of all blocks in both streams, twice.

    **Arguments:**

    - `texts`, `max_length`, `prepend_bos`, `checkpoint`, `progress`: as in `slope_map`. To combine
        the two, pass the same texts and length.
    - `patches`: one or more patches to vary; their strengths are ignored. `SlopeMap.patch` makes
        those of a map. If positions of one are numbers, each text must fit `max_length`.
    - `step`: in units of strength. If `errors` are too large, try half of it, or twice.
    - `scopes`: which predictions the loss is summed over, as in `slope_map`.

    Raises `ValueError` if there are no patches or one has `positions="generated"`, if the step is
    not a finite number above 0, in half precision, also that of `torch.autocast`, if a loss is not
    finite, or for texts, scopes and models that `slope_map` or `teacher_forced_log_probs` refuses;
    `TypeError` for a step that is no number, or one text where many are expected;
    `NotImplementedError` if the model's logits are not read off one residual stream; `OSError` if
    the file cannot be written, or another process is writing it. Warns if no text has one of the
    positions that a patch names.
    """
    length = piece_length(bridge, max_length)
    varied = require_patches(patches)
    dtype = product_dtype(bridge.W_U)
    if is_half(dtype):
        raise ValueError(
            f"find curvatures in float32 or float64: products are in {dtype}, and differences of "
            "losses are mostly rounding"
        )
    require_numbers(step=step)
    if not 0 < step < math.inf:
        raise ValueError(f"step must be a finite number above 0, got {step}")
    by_scope = scopes_by_name(scopes)
    measuring = _Measuring(bridge, varied, step, tuple(by_scope.values()))
    # Their strengths change nothing.
    asked = [replace(patch, strength=1.0) for patch in varied]
    settings = {"patches": asked, "step": step, "scopes": scopes, "max_length": length}
    sums = text_sums(
        bridge,
        texts,
        measuring,
        (len(by_scope), 1 + 3 * len(varied)),
        Reading(length, prepend_bos, progress, checkpoint, settings, varied),
    )
    measured = sums[..., 1:].reshape(*sums.shape[:2], 3, len(varied))
    return Curvature(
        curvatures=measured[:, :, 0],
        slopes=measured[:, :, 1],
        errors=measured[:, :, 2],
        counts=sums[..., 0],
        patches=varied,
        scopes=tuple(by_scope),
    )


@dataclass(frozen=True)
class _Measuring:
    """Counts, curvatures, slopes and errors of some texts, for each scope."""

    bridge: TransformerBridge
    patches: tuple[NextTokenPatch, ...]
    step: float
    scopes: tuple[Scope, ...]

    def __call__(self, text: KnownText) -> Float[Tensor, "piece scope value"]:
        h = self.step
        moved = [
            replace(patch, strength=strength)
            for patch in self.patches
            for strength in (h, -h, 2 * h, -2 * h)
        ]
        values = []
        for sums in loss_sums(self.bridge, text, moved, self.scopes):
            clean = sums.clean
            up, down, up2, down2 = sums.patched.view(len(self.patches), 4, -1).unbind(1)
            small, large = (up - 2 * clean + down) / h**2, (up2 - 2 * clean + down2) / (4 * h**2)
            slope = (8 * (up - down) - (up2 - down2)) / (12 * h)
            parts = torch.cat([(4 * small - large) / 3, slope, (small - large) / 3])
            values.append(torch.cat([sums.counts[None].double(), parts]))
        return rearrange(values, "scope value piece -> piece scope value")
