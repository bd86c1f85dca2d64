"""The loss of patched texts and its gradient, a few rows of logits at a time."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...model.precision import at_least_float32
from ...model.readout import LOGIT_ROWS, Readout
from ..bound_patch import BoundPatch
from ..known_text import KnownText
from ..teacher_forcing.two_streams import two_streams
from .measured_patch import MeasuredPatch

_Score = Callable[[slice, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Takes a slice of rows, their logits and a buffer. Returns the score of each row, and its gradient
in the logits, which is written to the buffer."""


def patched_losses(
    bridge: TransformerBridge,
    bound: BoundPatch,
    resid: Float[Tensor, "batch pos d_model"],
    text: KnownText,
    *,
    backward: float | None = None,
    write_penalty: float = 0.0,
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Nats of all the next tokens of each text, and the summed lengths of its writes.

    Every position before the predicting one is patched. Lengths are shares of the length of the
    residual that a write enters.

    **Arguments:**

    - `resid`: `r` at the patch's lowest layer; there is no padding on the left.
    - `backward`: if given, the gradient of this number times the sum of all nats is added to
        whatever leaves the patch depends on.
    - `write_penalty`: with `backward`, this times the sum of all lengths counts like nats.
    """
    measured = MeasuredPatch(**vars(bound))
    with torch.set_grad_enabled(backward is not None):
        late = patched_stream(bridge, measured, resid, text)
        none = resid.new_zeros(len(resid), dtype=at_least_float32(resid.dtype))
        shares = torch.stack([none, *measured.shares]).sum(0)
        if backward is not None and write_penalty and shares.requires_grad:
            # The writes are part of the graph of `late`, which is still needed.
            (backward * write_penalty * shares.sum()).backward(retain_graph=True)
    return next_token_nats(bound.readout, late, text, backward=backward), shares.detach()


def patched_stream(
    bridge: TransformerBridge,
    bound: BoundPatch,
    resid: Float[Tensor, "batch pos d_model"],
    text: KnownText,
) -> Float[Tensor, "batch pos d_model"]:
    """`r[L]` of each text, every position before the predicting one patched, differentiably.

    `resid` is `r` at the patch's lowest layer; there is no padding on the left.
    """
    (late,) = two_streams(
        bridge, [bound], resid, text, layer=bound.patch.layers[0], chunk_size=resid.shape[1]
    )
    return late[0]


def next_token_nats(
    read: Readout,
    late: Float[Tensor, "batch pos d_model"],
    text: KnownText,
    *,
    backward: float | None = None,
) -> Float[Tensor, " batch"]:
    """Nats of all the next tokens of each text, from `r[L]` as `late`.

    With `backward`, the gradient of that number times their sum goes into the graph of `late`.
    """
    targets = text.tokens.roll(-1, dims=1)[text.predicts]

    def score(rows: slice, logits: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        return _nats_and_gradient(logits, targets[rows], out)

    return _of_predicting_rows(read, late, text, score, backward)


def changed_nats(
    read: Readout,
    late: Float[Tensor, "batch pos d_model"],
    clean: Float[Tensor, "batch pos d_model"],
    text: KnownText,
    *,
    backward: float | None = None,
) -> Float[Tensor, " batch"]:
    """KL(clean ‖ late) of the next token, in nats, summed over the positions of each text.

    Both are `r[L]`. With `backward`, the gradient of that number times the sum goes into the graph
    of `late`.
    """
    expected = clean[text.predicts]

    def score(rows: slice, logits: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        wanted = read(expected[rows]).to(logits.dtype).log_softmax(-1)
        found, share = logits.log_softmax(-1), wanted.exp()
        torch.sub(found.exp(), share, out=out)
        # Tokens that the unembedding excludes have no part: there it is infinity minus infinity.
        return (share * (wanted - found)).where(share > 0, 0).sum(-1), out

    return _of_predicting_rows(read, late, text, score, backward)


def _of_predicting_rows(
    read: Readout,
    late: Float[Tensor, "batch pos d_model"],
    text: KnownText,
    score: _Score,
    backward: float | None,
) -> Float[Tensor, " batch"]:
    """The scores of the rows that predict a token of their text, summed for each text.

    A chunk's logits and their gradient are dropped before the next chunk's are made; a graph
    through all of them would keep them.
    """
    predicts = text.predicts
    owner = predicts.nonzero()[:, 0]
    rows = late[predicts]
    if not rows.requires_grad:  # there is no graph if no position was patched
        backward = None
    scores, gradients, buffer, start = [], [], None, 0
    for part in rows.split(LOGIT_ROWS):
        leaf = part.detach().requires_grad_(backward is not None)
        with torch.set_grad_enabled(backward is not None):
            logits = read(leaf)
        wide = logits.detach().to(at_least_float32(logits.dtype))
        if buffer is None:
            buffer = torch.empty_like(wide)
        with torch.no_grad():
            here = slice(start, start + len(part))
            lost, gradient = score(here, wide, buffer[: len(wide)])
        start += len(part)
        scores.append(lost)
        if backward is not None:
            gradients += torch.autograd.grad(logits, leaf, gradient.to(logits.dtype))
    if backward is not None:
        rows.backward(backward * torch.cat(gradients))
    lost = torch.cat(scores)
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
