"""A patch that notes how long its writes are."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ...model.precision import at_least_float32
from ..bound_patch import BoundPatch
from ..learned_write import LearnedWrite
from ..modes import Rows
from ..site import PatchSite


@dataclass(frozen=True, eq=False)
class MeasuredPatch(BoundPatch):
    """A bound patch that notes, for each text, how long its writes are.

    What a base writes does not count: only what is written on top of it does.

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
        written = torch.linalg.vector_norm(
            patched.to(wide.dtype) - self._unwritten(site, active).to(wide.dtype), dim=-1
        )
        # Padding may be zero, and so may the embedding of a token.
        length = torch.linalg.vector_norm(wide, dim=-1)
        self.shares.append((written / length.where(active & (length > 0), 1)).sum(-1))
        return patched

    def _unwritten(self, site: PatchSite, active: Bool[Tensor, "batch pos"]) -> Rows:
        """The rows that the write is added to: as they are, or with a base."""
        mode = self.patch.mode
        if not isinstance(mode, LearnedWrite) or mode.base is None:
            return site.resid
        tables = (self.embeddings, self.readout, self.lens, self.means)
        return BoundPatch(mode.base.patch(), *tables).patch_rows(site, active)
