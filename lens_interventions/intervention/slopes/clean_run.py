"""Texts run without a patch, and the gradient of their loss at the last residual."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...lens.distributions import log_probs_of
from ...model.points import point_labels
from ...model.readout import LOGIT_ROWS, readout
from ...model.residuals import residuals
from ...model.tokens import TokenBatch
from ..known_text import KnownText
from ..losses.loss_sums import require_finite


@dataclass(frozen=True)
class CleanRun:
    """A batch of texts, padded on the right, without a patch.

    Attributes:
        text: the tokens, with what a patch may read of this run.
        streams: `[batch, pos, d_model]` for each residual point, `r[0]` to `r[L]`.
        nats: `[batch, pos]`, the loss of each prediction, 0 where there is none.
        gradient: `[batch, pos, d_model]`, the derivative of that loss with respect to `r[L]` at the
            position.
        guesses: `[batch, pos]`, the model's top guess at each position.
    """

    text: KnownText
    streams: tuple[Float[Tensor, "batch pos d_model"], ...]
    nats: Float[Tensor, "batch pos"]
    gradient: Float[Tensor, "batch pos d_model"]
    guesses: Int[Tensor, "batch pos"]


def clean_run(bridge: TransformerBridge, text: KnownText) -> CleanRun:
    """Run texts without a patch, with only a few rows of logits in memory at a time.

    Raises `ValueError` if the loss is not finite.
    """
    tokens = text.tokens
    with torch.no_grad():
        batch = TokenBatch.unpadded(tokens)
        streams = residuals(bridge, batch, point_labels(int(bridge.cfg.n_layers)))
    read, final = readout(bridge), streams[-1]
    predicts = text.predicts
    following = tokens.roll(-1, dims=1)
    nats, gradients, guesses = [], [], []
    for rows, ids in zip(
        final.flatten(0, 1).split(LOGIT_ROWS), following.flatten().split(LOGIT_ROWS), strict=True
    ):
        leaf = rows.detach().requires_grad_()
        with torch.enable_grad():
            logits = read(leaf)
            lost = -log_probs_of(logits, ids)
            gradients += torch.autograd.grad(lost.sum(), leaf)
        nats.append(lost.detach())
        guesses.append(logits.detach().argmax(-1))
    lost = torch.cat(nats).view_as(tokens)
    require_finite(lost[predicts])
    lost = lost.where(predicts, 0)
    return CleanRun(
        text=replace(text, surprisal=lost, residuals=dict(enumerate(streams))),
        streams=tuple(streams),
        nats=lost,
        gradient=torch.cat(gradients).view_as(final),
        guesses=torch.cat(guesses).view_as(tokens),
    )
