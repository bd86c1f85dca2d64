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

from tests.support.planted import matching_model
from tests.support.tiny import tiny_tokenizer

N_TOKENS, N_CTX = 16, 48


@functools.cache
def ablated_bridge() -> TransformerBridge:
    """The model, float64."""
    return TransformerBridge.boot_transformers(
        "ablated",
        hf_model=matching_model(
            N_TOKENS, N_CTX, believed=0.0, copying=5, temperature=0.5, sharpness=20
        ),
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
