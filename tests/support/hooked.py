"""Tiny HookedTransformers. Importing this skips a file where TransformerLens has none."""

import pytest
import torch

from tests.support.architectures import N_CTX
from tests.support.tiny import D_VOCAB, tiny_tokenizer

try:
    from transformer_lens import HookedTransformer, HookedTransformerConfig
except ImportError:
    pytest.skip(
        "TransformerLens has no HookedTransformer since version 4; make compat installs 3.9",
        allow_module_level=True,
    )


@torch.no_grad()
def hooked(**config: object) -> HookedTransformer:
    """A tiny float64 model whose parameters are all drawn anew, norms and biases included."""
    config = {
        "n_layers": 2,
        "d_model": 16,
        "n_ctx": N_CTX,
        "d_head": 8,
        "n_heads": 2,
        "d_mlp": 24,
        "act_fn": "gelu",
        "d_vocab": D_VOCAB,
        "dtype": torch.float64,
        "device": "cpu",
        "tokenizer_prepends_bos": True,
        "tie_word_embeddings": False,
    } | config
    tied = config.pop("tie_word_embeddings")
    model = HookedTransformer(HookedTransformerConfig(**config), tokenizer=tiny_tokenizer())
    for parameter in model.parameters():
        neutral = 1.0 if parameter.ndim == 1 else 0.0
        parameter.copy_(neutral + 0.3 * torch.randn(parameter.shape))
    if tied:
        model.unembed.W_U.copy_(model.embed.W_E.T)
    return model
