"""A patch that notes how long its writes are."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ...model.precision import at_least_float32
from ..bound_patch import BoundPatch
from ..modes import Rows
from ..site import PatchSite


@dataclass(frozen=True, eq=False)
class MeasuredPatch(BoundPatch):
    """A bound patch that notes, for each text, how long its writes are.

    Attributes:
        shares: for each call, the lengths of the writes as shares of the lengths of the residuals
            that they enter, summed over the positions of each text. They have a graph if the writes
            have one.
    """

    shares: list[Float[Tensor, " batch"]] = field(default_factory=list)

    def patch_rows(self, site: PatchSite, active: Bool[Tensor, "batch pos"]) -> Rows:
        """The patched rows, whose writes are noted."""
        patched = super().patch_rows(site, active)
        wide = site.resid.to(at_least_float32(site.resid.dtype))
        written = torch.linalg.vector_norm(patched.to(wide.dtype) - wide, dim=-1)
        # Padding may be zero.
        length = torch.linalg.vector_norm(wide, dim=-1).where(active, 1)
        self.shares.append((written / length).sum(-1))
        return patched
