"""Patched decoding without a cache, for models on which the cached decoder is not exact."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...model.hooks import Hook, change_layers, hooked, keep, last_logits_only
from ...model.points import hook_name
from ..known_text import KnownText, select_rows
from ..unpatched import with_unpatched
from .patch_batch import PatchBatch


class RecomputingDecoder:
    """Logits at the end of growing texts, each run from its start, alone and unpadded.

    That is slow, but right on any model.

    **Arguments:**

    - `bridge`: the model.
    - `patches`: the patches, each on all the prompts.
    - `record`: labels of the residual points to keep at the predicting positions.

    Attributes:
        recorded: `[batch, d_model]` of each point of `record` at the position that predicted last,
            by label.
    """

    def __init__(
        self, bridge: TransformerBridge, patches: PatchBatch, *, record: Sequence[str] = ()
    ) -> None:
        self.recorded: dict[str, Float[Tensor, "batch d_model"]] = {}
        self._bridge, self._patches, self._record = bridge, patches, record

    @torch.no_grad()
    def logits(self, text: KnownText) -> Float[Tensor, "batch d_vocab"]:
        """Logits at the last known position of every text, which is the last column."""
        logits, streams = [], []
        last_only = last_logits_only(self._bridge)
        for row in range(len(text.tokens)):
            index = torch.tensor([row], device=text.tokens.device)
            alone = _unpadded(select_rows(text, index))
            if alone.surprisal is None:
                patches = [bound.patch for bound in self._patches.bounds if bound]
                alone = with_unpatched(self._bridge, alone, patches)
            captured: dict[str, Tensor] = {}
            hooks = self._hooks(alone, self._patches.keep(index), captured)
            with hooked(self._bridge, hooks):
                found = self._bridge(alone.tokens, **last_only)
            logits.append(found[:, -1])
            streams.append(captured)
        self.recorded = {
            label: torch.cat([captured[label] for captured in streams]) for label in streams[0]
        }
        return torch.cat(logits)

    def keep(self, rows: Int[Tensor, " row"]) -> None:
        """Continue with these rows only."""
        self._patches = self._patches.keep(rows)

    def _hooks(
        self, text: KnownText, patches: PatchBatch, captured: dict[str, Tensor]
    ) -> list[Hook]:
        patched = partial(patches, position=text.column_positions(), text=text)
        n_layers = int(self._bridge.cfg.n_layers)
        return [
            *change_layers(patches.layers, patched),
            *(
                (hook_name(label, n_layers), keep(captured, label, lambda resid: resid[:, -1]))
                for label in self._record
            ),
        ]


def _unpadded(text: KnownText) -> KnownText:
    """One text without the columns before its first token."""
    first = int(text.first)
    return replace(
        text,
        tokens=text.tokens[:, first:],
        first=text.first - first,
        surprisal=None if text.surprisal is None else text.surprisal[:, first:],
        residuals={layer: resid[:, first:] for layer, resid in text.residuals.items()},
    )
