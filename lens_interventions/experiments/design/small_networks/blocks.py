"""A minimal GPT-2 block for short trainings, with the modules of transformers."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn


def causal_block(
    block: Any, resid: Float[Tensor, "batch pos d_model"], n_heads: int
) -> Float[Tensor, "batch pos d_model"]:
    """The stream after a block that attends to all earlier positions."""
    q, k, v = split_heads(block.attn.c_attn(block.ln_1(resid)), resid.shape[-1], n_heads)
    mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return after_attention(block, resid, joined_heads(mixed))


def split_heads(
    rows: Float[Tensor, "batch pos some"], d_model: int, n_heads: int
) -> tuple[Tensor, ...]:
    """Queries, keys and values, or only keys and values, `[batch, head, pos, d_head]`."""
    parts = rows.split(d_model, dim=-1)
    return tuple(part.unflatten(-1, (n_heads, -1)).transpose(1, 2) for part in parts)


def joined_heads(
    heads: Float[Tensor, "batch head pos d_head"],
) -> Float[Tensor, "batch pos d_model"]:
    """The outputs of the heads, concatenated."""
    return heads.transpose(1, 2).flatten(2)


def after_attention(
    block: Any,
    resid: Float[Tensor, "batch pos d_model"],
    mixed: Float[Tensor, "batch pos d_model"],
) -> Float[Tensor, "batch pos d_model"]:
    """The stream after a block whose heads' outputs are `mixed`."""
    resid = resid + block.attn.c_proj(mixed)
    return resid + block.mlp(block.ln_2(resid))
