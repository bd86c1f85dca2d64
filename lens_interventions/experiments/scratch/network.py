"""A small GPT-2 that can be trained with a write, in one differentiable pass of two streams.

The streams are those of `intervention.teacher_forcing`, written here with the modules of
transformers, so that a training step costs little more than its products: below the entry there is
one stream, and the last block makes only keys and values of the patched stream.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import GPT2LMHeadModel

from ..design.small_networks.blocks import (
    after_attention,
    causal_block,
    joined_heads,
    split_heads,
)
from ..design.small_networks.shape import Shape


class Network(nn.Module):
    """A GPT-2 and the write that it may be trained with: `e M + b`, added at the block `entry`.

    Attributes:
        model: of transformers.
        entry: the block that the patched stream enters.
        up: `[d_model, d_model]`, `M`; it starts random, with entries of variance 1 / d_model.
        bias: `[d_model]`, `b`; it starts at zero.
    """

    def __init__(self, shape: Shape, entry: int, seed: int) -> None:
        """Draw the weights as transformers does, with `seed`.

        Raises `ValueError` if the network has no block `entry`.
        """
        super().__init__()
        if not 0 <= entry < shape.n_layers:
            raise ValueError(f"entry must be a block from 0 to {shape.n_layers - 1}, got {entry}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = GPT2LMHeadModel(shape.config())
            # The write starts as long as its input: from zero, a network learns to use it much
            # later.
            up = torch.randn(shape.d_model, shape.d_model) / shape.d_model**0.5
        self.shape, self.entry = shape, entry
        self.up = nn.Parameter(up)
        self.bias = nn.Parameter(torch.zeros(shape.d_model))

    def write(self, source: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        """The write at each position: for a token, for no token at all (-1), or nothing (-2)."""
        e = self.model.transformer.wte(source.clamp(min=0))
        e = e.masked_fill((source < 0)[..., None], 0.0)
        return (e @ self.up + self.bias).masked_fill((source == NOTHING)[..., None], 0.0)

    def forward(
        self,
        tokens: Int[Tensor, "batch pos"],
        source: Int[Tensor, "batch pos"] | None,
        *,
        patterns: list[Tensor] | None = None,
        gates: Float[Tensor, "block 2 head"] | None = None,
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Logits that a sampler would compute at each position, with those before it patched.

        **Arguments:**

        - `tokens`: the texts.
        - `source`: the tokens that are written, as `write` reads them; None for no patch.
        - `patterns`: a list to fill with the attention `[batch, head, query, key]` of each block,
            for the positions that predict.
        - `gates`: how much of the write gets into the keys and the values of each head, from 0 for
            nothing, as if they were made of the stream of the positions that predict, to 1 for all.
        """
        transformer = self.model.transformer
        position = torch.arange(tokens.shape[1], device=tokens.device)
        clean = transformer.wte(tokens) + transformer.wpe(position)
        patched = None
        for layer, block in enumerate(transformer.h):
            if layer == self.entry and source is not None:
                patched = clean + self.write(source)
            last = layer == self.shape.n_layers - 1
            gate = None if gates is None else gates[layer]
            clean, patched = self._block(block, clean, patched, last, patterns, gate)
        return self.model.lm_head(transformer.ln_f(clean))

    def _block(
        self,
        block: Any,
        clean: Tensor,
        patched: Tensor | None,
        last: bool,
        patterns: list[Tensor] | None,
        gate: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        width = self.shape.d_model
        if patched is None:
            if patterns is None:
                return causal_block(block, clean, self.shape.n_heads), None
            q, k, v = self._heads(block.attn.c_attn(block.ln_1(clean)))
            pattern = _pattern(q @ k.mT * q.shape[-1] ** -0.5)
            patterns.append(pattern)
            return after_attention(block, clean, joined_heads(pattern @ v)), None
        if last:
            # Nothing above reads the patched stream, so its keys and values are enough.
            q, k, v = self._heads(block.attn.c_attn(block.ln_1(clean)))
            weight, bias = block.attn.c_attn.weight[:, width:], block.attn.c_attn.bias[width:]
            written = self._heads(block.ln_1(patched) @ weight + bias)
            k_patched, v_patched = _gated((k, v), written, gate)
            mixed = _across(q, k, v, k_patched, v_patched, patterns)
            return after_attention(block, clean, joined_heads(mixed)), None
        both = torch.cat([clean, patched])
        q, k, v = self._heads(block.attn.c_attn(block.ln_1(both)))
        (q, q_patched), (k, k_patched), (v, v_patched) = (rows.chunk(2) for rows in (q, k, v))
        k_patched, v_patched = _gated((k, v), (k_patched, v_patched), gate)
        mixed = torch.cat(
            [
                _across(q, k, v, k_patched, v_patched, patterns),
                nn.functional.scaled_dot_product_attention(
                    q_patched, k_patched, v_patched, is_causal=True
                ),
            ]
        )
        clean, patched = after_attention(block, both, joined_heads(mixed)).chunk(2)
        return clean, patched

    def _heads(self, rows: Float[Tensor, "batch pos some"]) -> tuple[Tensor, ...]:
        """Queries, keys and values, or only keys and values, `[batch, head, pos, d_head]`."""
        return split_heads(rows, self.shape.d_model, self.shape.n_heads)


NO_TOKEN, NOTHING = -1, -2
"""What `Network.write` reads for a write without a token, and for no write."""


def _gated(
    clean: tuple[Tensor, ...], patched: tuple[Tensor, ...], gate: Float[Tensor, "2 head"] | None
) -> tuple[Tensor, ...]:
    """Keys and values between those of the clean stream and those of the patched one."""
    if gate is None:
        return patched
    # Not one bit differs from the end that a gate of 0 or 1 names.
    return tuple(map(torch.lerp, clean, patched, gate[..., None, None]))


def _across(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_patched: Tensor,
    v_patched: Tensor,
    patterns: list[Tensor] | None,
) -> Float[Tensor, "batch head pos d_head"]:
    """Each clean position attends to the patched ones before it, and to itself."""
    own = torch.eye(q.shape[2], dtype=torch.bool, device=q.device)
    scores = torch.where(own, (q * k).sum(-1, keepdim=True), q @ k_patched.mT)
    pattern = _pattern(scores * q.shape[-1] ** -0.5)
    if patterns is not None:
        patterns.append(pattern)
    itself = pattern.diagonal(dim1=-2, dim2=-1)[..., None]
    # Removed before the product, so that not one bit of the next token gets in.
    return pattern.masked_fill(own, 0.0) @ v_patched + itself * v


def _pattern(scores: Float[Tensor, "batch head pos pos"]) -> Tensor:
    length = scores.shape[-1]
    later = torch.ones(length, length, dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(later, -torch.inf).softmax(-1)
