"""Several patches on one batch, each on its own rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..bound_patch import BoundPatch
from ..known_text import KnownText, select_rows


@dataclass(frozen=True)
class PatchBatch:
    """A batch in groups of rows, one patch for each group.

    Attributes:
        bounds: the patch of each group; None is no patch.
        counts: how many rows each group has.
    """

    bounds: tuple[BoundPatch | None, ...]
    counts: tuple[int, ...]

    @classmethod
    def of_prompts(cls, bounds: Sequence[BoundPatch | None], n_prompts: int) -> "PatchBatch":
        """Every patch on all prompts, one patch after the other."""
        return cls(tuple(bounds), (n_prompts,) * len(bounds))

    @property
    def layers(self) -> list[int]:
        """Every layer at which some patch acts, lowest first."""
        return sorted({layer for bound in self.bounds if bound for layer in bound.patch.layers})

    @property
    def reads_unpatched(self) -> bool:
        """Whether some patch reads the model's run without it."""
        return any(bound.patch.reads_unpatched for bound in self.bounds if bound)

    def reach(self, length: int | None = None) -> int:
        """How many positions before the predicting one a new token changes, at most.

        The last one becomes known and is patched. With a window of w, the one that leaves the
        window is cleaned, and those in between attend to it. From texts that have, with the new
        token, at most `length` tokens, none leaves a window that spans them.
        """
        windows = [
            bound.patch.window if length is None else bound.patch.window_in(length)
            for bound in self.bounds
            if bound
        ]
        reaches = [1 + (window or 0) for window in windows]
        return max(reaches, default=0)

    def __call__(
        self,
        resid: Float[Tensor, "batch pos d_model"],
        *,
        layer: int,
        position: Int[Tensor, "batch pos"],
        text: KnownText,
    ) -> Float[Tensor, "batch pos d_model"]:
        """Rows of `r[layer]` as they are when the last known position predicts.

        **Arguments:**

        - `resid`: any rows of `r[layer]`; not written to.
        - `position`: the position of each row, counted from the text's first real token; -1 at
            padding.
        - `text`: what is known of the texts.
        """
        parts, start = [], 0
        for bound, count in zip(self.bounds, self.counts, strict=True):
            rows = slice(start, start + count)
            start += count
            if bound is None or layer not in bound.patch.layers or count == 0:
                parts.append(resid[rows])
                continue
            known = select_rows(text, rows)
            parts.append(bound(resid[rows], layer=layer, position=position[rows], text=known))
        return torch.cat(parts)

    def keep(self, rows: Int[Tensor, " row"]) -> "PatchBatch":
        """The patches of these rows alone, in the rows' order."""
        counts = torch.tensor(self.counts, device=rows.device)
        group = torch.arange(len(counts), device=rows.device).repeat_interleave(counts)[rows]
        return replace(self, counts=tuple(group.bincount(minlength=len(counts)).tolist()))
