"""The residuals that enter a layer in pieces of text, kept over trainings."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...model.argument_types import require_numbers
from ...model.exclusive import exclusive
from ...model.partial_run import run_late_blocks
from ...model.readout import Readout
from ...model.residuals import residuals
from ...model.tokens import TokenBatch
from ..known_text import KnownText
from .loss import next_token_nats

_GIB = 2.0**30


class ResidualStore:
    """The residuals that enter a layer in pieces of text, kept between visits and trainings.

    If several trainings on the same text, such as those of a source and its controls, share a
    store, the blocks below the layer run only once for all. It takes `4 d_model` bytes per token in
    float32: 0.3 GB for 130,000 tokens of the embedded model.
    """

    def __init__(self, *, gib: float = 4.0) -> None:
        """A store of at most `gib` GiB; residuals that do not fit are computed at every visit.

        Raises `ValueError` if `gib` is below 0 or NaN, `TypeError` if it is no number.
        """
        require_numbers(gib=gib)
        if not gib >= 0:
            raise ValueError(f"gib must be at least 0, got {gib}")
        self._room = gib * _GIB
        self._kept: dict[tuple[str, str, int, bool, bytes], tuple[Tensor, Tensor]] = {}

    @exclusive
    @torch.no_grad()
    def read(
        self,
        bridge: TransformerBridge,
        model: str,
        layer: int,
        tokens: Int[Tensor, " pos"],
        read: Readout,
    ) -> tuple[Float[Tensor, "pos d_model"], Float[Tensor, ""]]:
        """`r[layer]` of a piece, and the nats of its next tokens without a patch.

        A piece is run alone, so that no batch changes a bit of it.

        **Arguments:**

        - `bridge`, `model`: the model and its hash.
        - `layer`, `tokens`: the layer and the piece.
        - `read`: the model's readout. What a fast one read is kept apart, so that the numbers of
            a training do not depend on what others read before it.
        """
        key = (model, str(tokens.device), layer, read.fast, tokens.cpu().numpy().tobytes())
        if key in self._kept:
            return self._kept[key]
        piece = TokenBatch.unpadded(tokens[None])
        (resid,) = residuals(bridge, piece, [f"{layer}_pre"])
        late = run_late_blocks(bridge, layer, resid)
        (nats,) = next_token_nats(read, late, KnownText.from_batch(piece))
        size = resid.numel() * resid.element_size()
        if size <= self._room:
            self._room -= size
            self._kept[key] = (resid[0], nats)
        return resid[0], nats
