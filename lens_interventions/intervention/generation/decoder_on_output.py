"""Decoding under gates that read what the model predicts without a patch."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...model.hooks import keep, temporary_hooks
from ...model.points import FINAL, hook_name
from ...model.readout import readout
from ..known_text import KnownText
from ..surprisal import surprisal_of
from .cached_decoder import CachedDecoder
from .patch_batch import PatchedRows


class DecoderOnOutput:
    """A cached decoder, and beside it the model without a patch, with a cache of its own.

    Each new token goes through both. What the unpatched model thought of it is known before the
    position that predicted it is patched, so gates open where they do in the finished text.

    **Arguments:**

    - `bridge`: the model.
    - `rows`: the patches; each has all the prompts.
    - `chunk_size`: how many positions of a prompt go through the model at a time.
    - `record`: keep the residual stream of the predicting positions.
    """

    def __init__(
        self, bridge: TransformerBridge, rows: PatchedRows, *, chunk_size: int, record: bool = False
    ) -> None:
        without = PatchedRows((None,), (sum(rows.counts),))
        self._patched = CachedDecoder(bridge, rows, chunk_size=chunk_size, record=record)
        self._unpatched = CachedDecoder(bridge, without, chunk_size=chunk_size)
        self._final = bridge.hook_dict[hook_name(FINAL, int(bridge.cfg.n_layers))]
        self._readout = readout(bridge)
        # The last residual of the last column, whose next token is not known yet.
        self._last: Float[Tensor, "batch 1 d_model"] | None = None
        self._surprisal: Float[Tensor, "batch column"] | None = None

    @property
    def recorded(self) -> dict[str, Float[Tensor, "batch d_model"]]:
        """`[batch, d_model]` of every residual point at the position that predicted last."""
        return self._patched.recorded

    @torch.no_grad()
    def logits(self, text: KnownText) -> Float[Tensor, "batch d_vocab"]:
        """Logits at the last known position of every text, which is the last column.

        The first call reads the prompts; later ones expect the same texts, one column longer.

        Raises `CacheError` if the model does not fill the cache or it cannot be shortened.
        """
        return self._patched.logits(text if text.surprisal is not None else self._read(text))

    def keep(self, rows: Int[Tensor, " row"]) -> None:
        """Go on with these rows only."""
        self._patched.keep(rows)
        self._unpatched.keep(rows)
        if self._last is not None and self._surprisal is not None:
            self._last, self._surprisal = self._last[rows], self._surprisal[rows]

    def _read(self, text: KnownText) -> KnownText:
        kept: dict[str, Tensor] = {} if self._last is None else {FINAL: self._last}

        def appended(resid: Tensor) -> Tensor:
            return torch.cat([kept[FINAL], resid], dim=1) if FINAL in kept else resid

        with temporary_hooks([(self._final, keep(kept, FINAL, appended))]):
            self._unpatched.logits(text)
        final = kept[FINAL]
        following = text.tokens[:, text.tokens.shape[1] - final.shape[1] + 1 :]
        new = surprisal_of(self._readout, final[:, :-1], following)
        before = [] if self._surprisal is None else [self._surprisal]
        self._surprisal = torch.cat([*before, new], dim=1)
        self._last = final[:, -1:]
        return replace(text, surprisal=self._surprisal)
