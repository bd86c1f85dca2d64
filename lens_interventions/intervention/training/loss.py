"""The loss of patched texts and its gradient, a few rows of logits at a time."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...model.precision import at_least_float32
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
    nats, gradients, buffer = [], [], None
    for part, ids in zip(rows.split(LOGIT_ROWS), targets.split(LOGIT_ROWS), strict=True):
        leaf = part.detach().requires_grad_(backward is not None)
        logits = read(leaf)
        wide = logits.detach().to(at_least_float32(logits.dtype))
        if buffer is None:
            buffer = torch.empty_like(wide)
        lost, gradient = _nats_and_gradient(wide, ids, buffer[: len(wide)])
        nats.append(lost)
        if backward is not None:
            gradients += torch.autograd.grad(logits, leaf, gradient.to(logits.dtype))
    if backward is not None:
        rows.backward(backward * torch.cat(gradients))
    lost = torch.cat(nats)
    return lost.new_zeros(len(late)).index_add(0, owner, lost)


def _nats_and_gradient(
    logits: Float[Tensor, "row d_vocab"],
    ids: Int[Tensor, " row"],
    out: Float[Tensor, "row d_vocab"],
) -> tuple[Float[Tensor, " row"], Float[Tensor, "row d_vocab"]]:
    """Nats of one token a row, and their gradient in the logits, which is written to `out`.

    The gradient is the softmax, less one at the token. A graph of the logarithm would go through
    the vocabulary eight times more, which with many tokens takes as long as the products.
    """
    probabilities = torch.softmax(logits, dim=-1, out=out)
    # The softmax of the largest logit is the largest one.
    log_normalizer = logits.amax(-1) - probabilities.amax(-1).log()
    lost = log_normalizer - logits.gather(-1, ids[:, None])[:, 0]
    minus_one = out.new_tensor(-1).expand(len(ids), 1)
    return lost, probabilities.scatter_add_(-1, ids[:, None], minus_one)
