"""The loss of patched texts and its gradient, a few rows of logits at a time."""

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...lens.distributions import log_probs_of
from ...model.readout import LOGIT_ROWS, Readout
from ..bound_patch import BoundPatch
from ..known_text import KnownText
from ..teacher_forcing.two_streams import two_streams


def patched_nats(
    bridge: TransformerBridge,
    bound: BoundPatch,
    resid: Float[Tensor, "batch pos d_model"],
    text: KnownText,
    *,
    backward: float | None = None,
) -> Float[Tensor, " batch"]:
    """Nats of all the next tokens of each text, every position before the predicting one patched.

    `resid` is `r` at the patch's lowest layer; there is no padding on the left. With `backward`,
    the gradient of that number times their sum is added to whatever leaves the patch depends on.
    """
    with torch.set_grad_enabled(backward is not None):
        (late,) = two_streams(
            bridge, [bound], resid, text, layer=bound.patch.layers[0], chunk_size=resid.shape[1]
        )
        return next_token_nats(bound.readout, late[0], text, backward=backward)


def next_token_nats(
    read: Readout,
    late: Float[Tensor, "batch pos d_model"],
    text: KnownText,
    *,
    backward: float | None = None,
) -> Float[Tensor, " batch"]:
    """Nats of all the next tokens of each text, from `r[L]` as `late`.

    With `backward`, the gradient of that number times their sum goes into the graph of `late`. A
    chunk's logits and their gradient are dropped before the next chunk's are made; a graph through
    all of them would keep them.
    """
    position = torch.arange(late.shape[1], device=late.device)
    predicts = text.has_next(position.expand(len(late), -1))
    owner = predicts.nonzero()[:, 0]
    targets = text.tokens.roll(-1, dims=1)[predicts]
    rows = late[predicts]
    nats, gradients = [], []
    for part, ids in zip(rows.split(LOGIT_ROWS), targets.split(LOGIT_ROWS), strict=True):
        leaf = part.detach().requires_grad_(backward is not None)
        lost = -log_probs_of(read(leaf), ids)
        if backward is not None:
            gradients += torch.autograd.grad(backward * lost.sum(), leaf)
        nats.append(lost.detach())
    if backward is not None:
        rows.backward(torch.cat(gradients))
    lost = torch.cat(nats)
    return lost.new_zeros(len(late)).index_add(0, owner, lost)
