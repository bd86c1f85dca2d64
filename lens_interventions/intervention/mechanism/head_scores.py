"""Scores of heads: where a head attends, and its effect on the token that it attends to."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge

from ..._counter_random import random_integers
from ...model.attention_points import attention_points
from ...model.hooks import capture, keep
from ...model.partial_run import run_late_rows
from ...model.points import hook_name, layer_label
from ...model.readout import readout

ByHead = Float[Tensor, "layer head"]

# How many random tokens are repeated, in how many texts; and how many tokens test copying.
_SAID, _TEXTS, _ATTENDED = 32, 4, 96


@dataclass(frozen=True)
class HeadScores:
    """Three scores of each query head, `[layer, head]`.

    Attributes:
        matching: on random tokens that are repeated once, the mean attention from a token to the
            one that followed it the first time. This is the prefix-matching score of Olsson et al.
            2022, near 1 in an induction head.
        previous: the mean attention to the previous position on the same tokens.
        copying: by how many standard deviations the head's output raises the logit of the token
            that it attends to above the logits of other tokens, on average over random tokens. A
            negative score lowers that logit, as copy-suppression heads do (McDougall et al. 2023).
    """

    matching: ByHead
    previous: ByHead
    copying: ByHead


@torch.no_grad()
def head_scores(bridge: TransformerBridge) -> HeadScores:
    """The scores of all heads of a model, which need no text.

    Raises `NotImplementedError` for a model whose attention patterns cannot be read, or whose heads
    cannot be told apart.
    """
    return HeadScores(*_attention_scores(bridge), _copying(bridge))


def _attention_scores(bridge: TransformerBridge) -> tuple[ByHead, ByHead]:
    names = attention_points(bridge, "pattern", range(int(bridge.cfg.n_layers)))
    said = min(_SAID, int(bridge.cfg.n_ctx) // 2)
    part = _random_tokens(bridge, said * _TEXTS).view(_TEXTS, said)
    patterns = capture(bridge, torch.cat([part, part], dim=1), names)
    second = torch.arange(said, 2 * said, device=part.device)

    def mean_attention(back: int) -> ByHead:
        return torch.stack(
            [pattern[:, :, second, second - back].mean((0, 2)) for pattern in patterns]
        )

    return mean_attention(said - 1), mean_attention(1)


def _copying(bridge: TransformerBridge) -> ByHead:
    """The copying score: the path from a token's value through a head to its own logit.

    A token is represented by what block 0 makes of it alone. A head can attend to nothing else in a
    text of one token, so its output is the path itself.
    """
    layers = range(int(bridge.cfg.n_layers))
    mixed, written = (attention_points(bridge, point, layers) for point in ("z", "out"))
    tokens = _random_tokens(bridge, _ATTENDED).unique()
    (alone,) = capture(bridge, tokens[:, None], [hook_name(layer_label(1, len(mixed)), len(mixed))])
    read, n_heads = readout(bridge), int(bridge.cfg.n_heads)
    one_each = torch.eye(n_heads, dtype=torch.bool, device=alone.device).repeat(len(tokens), 1)

    def one_head(z: Tensor, hook: HookPoint) -> Tensor:
        by_head = z.view(len(one_each), n_heads, -1) * one_each[..., None]
        return by_head.view(z.shape).to(z)

    here = torch.zeros(1, dtype=torch.long, device=alone.device)
    scores = []
    for layer, (z, out) in enumerate(zip(mixed, written, strict=True)):
        kept: dict[str, Tensor] = {}
        run_late_rows(
            bridge,
            layer,
            alone.repeat_interleave(n_heads, dim=0),
            position=here,
            fwd_hooks=[(z, one_head), (out, keep(kept, "out"))],
            until=layer_label(layer + 1, len(mixed)),
        )
        by_head = kept["out"].view(len(tokens), n_heads, -1).transpose(0, 1)
        scores.append(_own_logit(read.normalize(by_head) @ read.weight[tokens].T))
    return torch.stack(scores)


def _own_logit(
    logits: Float[Tensor, "head attended token"],
) -> Float[Tensor, " head"]:
    """How far the logit of the token attended to stands out, in standard deviations.

    The part of a head's effect on a token that does not depend on the token attended to is
    subtracted, biases included.
    """
    moved = logits - logits.mean(1, keepdim=True)
    own = moved.diagonal(dim1=1, dim2=2)
    spread = moved.std(2).clamp(min=torch.finfo(moved.dtype).tiny)
    return ((own - moved.mean(2)) / spread).mean(1)


def _random_tokens(bridge: TransformerBridge, n: int) -> Int[Tensor, " token"]:
    counter = torch.arange(n, device=bridge.cfg.device)
    return random_integers(int(bridge.cfg.d_vocab), 0, counter)
