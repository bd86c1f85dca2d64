"""A model with a planted defect of copying, which the true next token repairs.

Two blocks with hand-set weights, in an ordinary GPT-2. The residual stream has three parts: `B`
(where token embeddings live and the unembedding reads), `K` and one direction for each position.

- Block 0 notes the current token in `K` and replaces `B` by what the position *believes* comes
  next, a fixed guess for each token, which is nearly always wrong.
- Block 1 looks for earlier positions with the same token in `K` and copies their belief.

So the model copies what earlier positions believed, not what came after them. A patch of the true
next token at block 1 puts what really came into `B` of the earlier position, and the model copies
that. A random, shuffled or current token, the guess and a random direction put something else
there.
"""

import functools

import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedModel

from tests.support.tiny import D_VOCAB, tiny_model, tiny_tokenizer

N_CTX = 96


@functools.cache
def planted_bridge(dtype: torch.dtype = torch.float64) -> TransformerBridge:
    """The model that copies beliefs."""
    return _bridge("planted", dtype, copying=10.0)


@functools.cache
def faint_bridge(dtype: torch.dtype = torch.float64) -> TransformerBridge:
    """The same with next to no copying: patches of earlier positions change almost nothing."""
    return _bridge("faint", dtype, copying=0.002)


def _bridge(name: str, dtype: torch.dtype, *, copying: float) -> TransformerBridge:
    return TransformerBridge.boot_transformers(
        name,
        hf_model=planted_model(copying=copying),
        dtype=dtype,
        device="cpu",
        tokenizer=tiny_tokenizer(),
    )


@torch.no_grad()
def planted_model(*, copying: float) -> PreTrainedModel:
    """The Hugging Face model, float64; what is copied weighs `copying`, what is believed 1."""
    return matching_model(
        D_VOCAB, N_CTX, believed=beliefs(), copying=copying, temperature=0.37, sharpness=5
    )


@torch.no_grad()
def matching_model(
    n_tokens: int,
    n_ctx: int,
    *,
    believed: torch.Tensor | float,
    copying: float,
    temperature: float,
    sharpness: float,
) -> PreTrainedModel:
    """Block 0 puts the token into `K` and `believed` into `B`; block 1 copies `B` of a match."""
    d_model = 2 * n_tokens + n_ctx
    b, k, p = slice(0, n_tokens), slice(n_tokens, 2 * n_tokens), slice(2 * n_tokens, d_model)
    tokens, places = torch.eye(n_tokens), torch.eye(n_ctx)
    model = tiny_model(
        "gpt2",
        vocab_size=n_tokens,
        n_embd=d_model,
        n_layer=2,
        n_head=1,
        n_positions=n_ctx,
        n_inner=4,
    )
    for parameter in model.parameters():
        parameter.zero_()
    body = model.transformer
    for norm in (body.h[0].ln_1, body.h[1].ln_1):
        norm.weight.fill_(1.0)
    body.ln_f.weight.fill_(temperature)  # confident, not absolute
    body.wte.weight[:, b] = tokens  # tied with the unembedding
    body.wpe.weight[:, p] = places

    # Block 0: each position looks at itself.
    look, write = body.h[0].attn.c_attn, body.h[0].attn.c_proj
    query, key, value = look.weight.split(d_model, dim=1)
    mean, scale = _norm_statistics(2, d_model)
    query[p, p] = 20 * places
    key[p, p] = places
    value[b, b] = scale * tokens  # undoes the layer norm
    look.bias[2 * d_model :][b] = mean
    write.weight[b, k] = tokens
    write.weight[b, b] = believed - tokens

    # Block 1: each position looks for its token at other positions.
    look, write = body.h[1].attn.c_attn, body.h[1].attn.c_proj
    query, key, value = look.weight.split(d_model, dim=1)
    # Without a belief, `B` is empty.
    _, scale = _norm_statistics(3 if isinstance(believed, torch.Tensor) else 2, d_model)
    query[k, k] = sharpness * tokens
    query[p, p] = -3 * sharpness * places
    key[k, k] = tokens
    key[p, p] = places
    value[b, b] = scale * tokens
    write.weight[b, b] = copying * tokens
    return model


def beliefs() -> torch.Tensor:
    """`[token, belief]`: one token that each token believes comes next, never itself."""
    order = torch.randperm(D_VOCAB, generator=torch.Generator().manual_seed(3))
    guess = torch.empty(D_VOCAB, dtype=torch.long)
    guess[order] = order.roll(1)
    return torch.eye(D_VOCAB, dtype=torch.float64)[guess]


def _norm_statistics(n_ones: int, d_model: int) -> tuple[float, float]:
    """Mean and deviation of a residual that is `n_ones` ones and zeros."""
    mean = n_ones / d_model
    return mean, (mean - mean**2) ** 0.5
