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
D_MODEL = 2 * D_VOCAB + N_CTX
_B, _K = slice(0, D_VOCAB), slice(D_VOCAB, 2 * D_VOCAB)
_P = slice(2 * D_VOCAB, D_MODEL)


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
    model = tiny_model("gpt2", n_embd=D_MODEL, n_layer=2, n_head=1, n_positions=N_CTX, n_inner=4)
    for parameter in model.parameters():
        parameter.zero_()
    body = model.transformer
    for norm in (body.h[0].ln_1, body.h[1].ln_1):
        norm.weight.fill_(1.0)
    body.ln_f.weight.fill_(0.37)  # a temperature: confident, not absolute
    body.wte.weight[:, _B] = torch.eye(D_VOCAB)  # tied with the unembedding
    body.wpe.weight[:, _P] = torch.eye(N_CTX)

    # Block 0: each position looks at itself.
    mean, scale = _norm_statistics(n_ones=2)
    look, write = body.h[0].attn.c_attn, body.h[0].attn.c_proj
    _query(look)[_P, _P] = 20 * torch.eye(N_CTX)
    _key(look)[_P, _P] = torch.eye(N_CTX)
    _value(look)[_B, _B] = scale * torch.eye(D_VOCAB)  # undoes the layer norm
    look.bias[2 * D_MODEL :][_B] = mean
    write.weight[_B, _K] = torch.eye(D_VOCAB)
    write.weight[_B, _B] = beliefs() - torch.eye(D_VOCAB)

    # Block 1: each position looks for its token at other positions.
    mean, scale = _norm_statistics(n_ones=3)
    look, write = body.h[1].attn.c_attn, body.h[1].attn.c_proj
    _query(look)[_K, _K] = 5 * torch.eye(D_VOCAB)
    _query(look)[_P, _P] = -15 * torch.eye(N_CTX)
    _key(look)[_K, _K] = torch.eye(D_VOCAB)
    _key(look)[_P, _P] = torch.eye(N_CTX)
    _value(look)[_B, _B] = scale * torch.eye(D_VOCAB)
    write.weight[_B, _B] = copying * torch.eye(D_VOCAB)
    return model


def beliefs() -> torch.Tensor:
    """`[token, belief]`: one token that each token believes comes next, never itself."""
    order = torch.randperm(D_VOCAB, generator=torch.Generator().manual_seed(3))
    guess = torch.empty(D_VOCAB, dtype=torch.long)
    guess[order] = order.roll(1)
    return torch.eye(D_VOCAB, dtype=torch.float64)[guess]


def _norm_statistics(n_ones: int) -> tuple[float, float]:
    """Mean and deviation of a residual that is `n_ones` ones and zeros."""
    mean = n_ones / D_MODEL
    return mean, (mean - mean**2) ** 0.5


def _query(attention: torch.nn.Module) -> torch.Tensor:
    return attention.weight[:, :D_MODEL]


def _key(attention: torch.nn.Module) -> torch.Tensor:
    return attention.weight[:, D_MODEL : 2 * D_MODEL]


def _value(attention: torch.nn.Module) -> torch.Tensor:
    return attention.weight[:, 2 * D_MODEL :]
