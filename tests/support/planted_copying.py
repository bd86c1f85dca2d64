"""A model whose copying was ablated, on texts where nothing but copying lowers the loss.

Two blocks with hand-set weights, in a GPT-2 of 16 tokens. The residual stream has three parts: `B`
(where token embeddings live and the unembedding reads), `K` and one direction for each position.

- Block 0 notes the current token in `K` and clears `B`: every token is as likely as any other.
- Block 1 looks for earlier positions with the same token in `K`, so sharply that nothing else
  matters, and copies what they hold in `B`: nothing. What would put the next token there is gone.

A text is pairs of a key and its value. Keys are drawn independently, a key's value is drawn once
for each text, both uniformly from the whole vocabulary. So a next token is predictable where a key
comes again, and only from what came after it before: adding the true next token's embedding at
block 1 lets the head copy it, while anything that is a function of the tokens up to a position says
nothing about what comes after it. There the model as it is has the lowest expected loss.
"""

import functools

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from tests.support.tiny import tiny_model, tiny_tokenizer

N_TOKENS, N_CTX = 16, 48
D_MODEL = 2 * N_TOKENS + N_CTX
_B, _K = slice(0, N_TOKENS), slice(N_TOKENS, 2 * N_TOKENS)
_P = slice(2 * N_TOKENS, D_MODEL)


@functools.cache
def ablated_bridge() -> TransformerBridge:
    """The model, float64."""
    return TransformerBridge.boot_transformers(
        "ablated",
        hf_model=_model(),
        dtype=torch.float64,
        device="cpu",
        tokenizer=tiny_tokenizer(),
    )


def key_value_texts(n_texts: int, *, seed: int) -> list[Tensor]:
    """Texts of 24 pairs."""
    generator = torch.Generator().manual_seed(seed)
    texts = []
    for _ in range(n_texts):
        values = torch.randint(N_TOKENS, (N_TOKENS,), generator=generator)
        keys = torch.randint(N_TOKENS, (N_CTX // 2,), generator=generator)
        texts.append(torch.stack([keys, values[keys]], dim=1).flatten())
    return texts


@torch.no_grad()
def _model() -> torch.nn.Module:
    model = tiny_model(
        "gpt2",
        vocab_size=N_TOKENS,
        n_embd=D_MODEL,
        n_layer=2,
        n_head=1,
        n_positions=N_CTX,
        n_inner=4,
    )
    for parameter in model.parameters():
        parameter.zero_()
    body = model.transformer
    for norm in (body.h[0].ln_1, body.h[1].ln_1):
        norm.weight.fill_(1.0)
    body.ln_f.weight.fill_(0.5)
    body.wte.weight[:, _B] = torch.eye(N_TOKENS)  # tied with the unembedding
    body.wpe.weight[:, _P] = torch.eye(N_CTX)
    # The deviation of a residual of two ones and zeros, which a layer norm divides by.
    scale = (2 / D_MODEL - (2 / D_MODEL) ** 2) ** 0.5

    # Block 0: each position looks at itself and moves its token from B to K.
    look, write = body.h[0].attn.c_attn, body.h[0].attn.c_proj
    _part(look, 0)[_P, _P] = 20 * torch.eye(N_CTX)
    _part(look, 1)[_P, _P] = torch.eye(N_CTX)
    _part(look, 2)[_B, _B] = scale * torch.eye(N_TOKENS)
    look.bias[2 * D_MODEL :][_B] = 2 / D_MODEL
    write.weight[_B, _K] = torch.eye(N_TOKENS)
    write.weight[_B, _B] = -torch.eye(N_TOKENS)

    # Block 1: each position looks for its token at other positions and copies their B.
    look, write = body.h[1].attn.c_attn, body.h[1].attn.c_proj
    _part(look, 0)[_K, _K] = 20 * torch.eye(N_TOKENS)
    _part(look, 0)[_P, _P] = -60 * torch.eye(N_CTX)
    _part(look, 1)[_K, _K] = torch.eye(N_TOKENS)
    _part(look, 1)[_P, _P] = torch.eye(N_CTX)
    _part(look, 2)[_B, _B] = scale * torch.eye(N_TOKENS)
    write.weight[_B, _B] = 5 * torch.eye(N_TOKENS)
    return model


def _part(attention: torch.nn.Module, which: int) -> Tensor:
    """The weights of queries (0), keys (1) or values (2)."""
    return attention.weight[:, which * D_MODEL : (which + 1) * D_MODEL]
