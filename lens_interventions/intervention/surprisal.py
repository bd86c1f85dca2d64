"""How surprising tokens were to the model without a patch, for gates that read its output."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ..lens.distributions import log_probs_of
from ..model.points import FINAL
from ..model.readout import LOGIT_ROWS, Readout, readout
from ..model.residuals import residual_chunks
from ..model.tokens import TokenBatch
from .known_text import KnownText


def surprisal_of(
    read: Readout, final: Float[Tensor, "batch pos d_model"], following: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch pos"]:
    """Nats of a token at each row of the last residual; few rows of logits exist at a time."""
    rows = zip(
        final.flatten(0, 1).split(LOGIT_ROWS), following.flatten().split(LOGIT_ROWS), strict=True
    )
    return -torch.cat([log_probs_of(read(resid), ids) for resid, ids in rows]).view_as(following)


@torch.no_grad()
def with_surprisal(bridge: TransformerBridge, text: KnownText) -> KnownText:
    """The texts with the surprisal of each next token, from a run of the bridge as it is."""
    read, position = readout(bridge), text.column_positions()
    batch = TokenBatch(text.tokens, position >= 0).padded_on("right")
    following = batch.tokens.roll(-1, dims=1)
    parts = []
    for start, streams in residual_chunks(bridge, batch, [FINAL]):
        final = streams[FINAL]
        parts.append(surprisal_of(read, final, following[:, start : start + final.shape[1]]))
    nats = torch.cat(parts, dim=1)
    return replace(text, surprisal=nats.gather(1, position.clamp(min=0)))
