"""How likely a sampler under a patch would write given continuations."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...lens.distributions import log_probs_of
from ...model.exclusive import exclusive
from ...model.tokens import token_batch
from ..patch import NextTokenPatch
from .passes import TextPasses

Continued = tuple[Sequence[int], Sequence[int]]


@exclusive
@torch.no_grad()
def continuation_log_probs(
    bridge: TransformerBridge,
    continued: Sequence[Continued],
    patch: NextTokenPatch | None,
    *,
    text_seeds: Int[Tensor, " text"],
) -> tuple[Float[Tensor, " text"], Bool[Tensor, " text"]]:
    """Log-probability of each continuation in nats, and whether greedy decoding writes it.

    A token of the continuation is known to the model, and patched in, once it has been predicted.

    **Arguments:**

    - `continued`: ids of a context and of its continuation, neither of them empty. All tokens of a
        text except the last must fit the model's context.
    - `text_seeds`: an integer for each text, for random sources.

    Raises `ValueError` if logits are not a number.
    """
    # The last token is predicted and not read.
    read = [[*context, *continuation][:-1] for context, continuation in continued]
    batch = token_batch(bridge, read)
    starts = torch.tensor([len(context) for context, _ in continued], device=batch.tokens.device)
    following = batch.tokens.roll(-1, dims=1)
    last = torch.tensor([continuation[-1] for _, continuation in continued])
    following.scatter_(1, batch.lengths[:, None] - 1, last[:, None].to(following))

    def reduce(logits: Tensor, targets: Tensor) -> Tensor:
        log_probs = log_probs_of(logits, targets)
        return torch.stack([log_probs, (logits.argmax(-1) == targets).to(log_probs)], dim=-1)

    continuing = batch.mask & (batch.positions >= starts[:, None] - 1)
    passes = TextPasses.plan(bridge, [patch], batch, prompt_length=starts, text_seeds=text_seeds)
    log_probs, greedy = passes.read(reduce, following, continuing)[0].unbind(-1)
    if missing := (log_probs.isnan() & continuing).any(-1).nonzero()[:, 0].tolist():
        raise ValueError(
            f"the model's logits are not a number in text {missing[0]}: look for a patch that "
            "writes such values, or a half-precision overflow"
        )
    return log_probs.where(continuing, 0).sum(-1), ((greedy == 1) | ~continuing).all(-1)
