"""Decoding under patches that read the model's run without them."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...model.hooks import keep, temporary_hooks
from ...model.points import FINAL, hook_name, layer_label
from ...model.readout import readout
from ..known_text import KnownText
from ..unpatched import source_layers, surprisal_of
from .cached_decoder import CachedDecoder, joined
from .patch_batch import PatchBatch


class DecoderBesideUnpatched:
    """A cached decoder beside the model without a patch, which has a cache of its own.

    Each new token goes through both. The unpatched model's residual at a position, and its
    surprisal at the next token, are known before the position is patched, and are those of the
    finished text.

    **Arguments:**

    - `bridge`: the model.
    - `patches`: the patches, each on all the prompts.
    - `chunk_size`: how many positions of a prompt go through the model at a time.
    - `record`: labels of the residual points to keep at the predicting positions.
    """

    def __init__(
        self,
        bridge: TransformerBridge,
        patches: PatchBatch,
        *,
        chunk_size: int,
        record: Sequence[str],
    ) -> None:
        without = PatchBatch((None,), (sum(patches.counts),))
        self._patched = CachedDecoder(bridge, patches, chunk_size=chunk_size, record=record)
        self._unpatched = CachedDecoder(bridge, without, chunk_size=chunk_size)
        n_layers = int(bridge.cfg.n_layers)
        layers = source_layers(bound.patch for bound in patches.bounds if bound)
        self._labels = {layer: layer_label(layer, n_layers) for layer in layers}
        self._points = {
            label: bridge.hook_dict[hook_name(label, n_layers)]
            for label in {FINAL, *self._labels.values()}
        }
        self._readout = readout(bridge)
        # The last residual of the last column, whose next token is not known yet.
        self._last: Float[Tensor, "batch 1 d_model"] | None = None
        self._surprisal: Float[Tensor, "batch column"] | None = None
        self._residuals: dict[int, Float[Tensor, "batch column d_model"]] = {}

    @property
    def recorded(self) -> dict[str, Float[Tensor, "batch d_model"]]:
        """`[batch, d_model]` of each point of `record` at the position that predicted last."""
        return self._patched.recorded

    @torch.no_grad()
    def logits(self, text: KnownText) -> Float[Tensor, "batch d_vocab"]:
        """Logits at the last known position of every text, which is the last column.

        The first call reads the prompts; later ones expect the same texts, one column longer.

        Raises `CacheError` if the model does not fill the cache or it cannot be shortened.
        """
        return self._patched.logits(text if text.surprisal is not None else self._read(text))

    def keep(self, rows: Int[Tensor, " row"]) -> None:
        """Continue with these rows only."""
        self._patched.keep(rows)
        self._unpatched.keep(rows)
        if self._last is not None and self._surprisal is not None:
            self._last, self._surprisal = self._last[rows], self._surprisal[rows]
        self._residuals = {layer: resid[rows] for layer, resid in self._residuals.items()}

    def _read(self, text: KnownText) -> KnownText:
        kept: dict[str, Tensor] = {}

        def appended(label: str, resid: Tensor) -> Tensor:
            return joined(kept.get(label), resid)

        hooks = [
            (point, keep(kept, label, partial(appended, label)))
            for label, point in self._points.items()
        ]
        with temporary_hooks(hooks):
            self._unpatched.logits(text)
        for layer, label in self._labels.items():
            self._residuals[layer] = joined(self._residuals.get(layer), kept[label])
        final = joined(self._last, kept[FINAL])
        following = text.tokens[:, text.tokens.shape[1] - final.shape[1] + 1 :]
        new = surprisal_of(self._readout, final[:, :-1], following)
        self._surprisal = joined(self._surprisal, new)
        self._last = final[:, -1:]
        return replace(text, surprisal=self._surprisal, residuals=dict(self._residuals))
