"""Texts to fit to, and what a fit sees of them."""

import torch

from tests.support.tiny import D_VOCAB


def random_texts(n=60, length=24, seed=1):
    """Token ids, none of them special."""
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randint(4, D_VOCAB, (n, length), generator=generator))


def residual_rows(bridge, texts):
    """`r[l]` of every layer, `[token, d_model]`, first tokens left out, by run_with_cache."""
    names = [*(f"blocks.{layer}.hook_resid_pre" for layer in range(3)), "blocks.2.hook_resid_post"]
    streams = []
    for text in texts:
        _, cache = bridge.run_with_cache(text[None], names_filter=names)
        streams.append([cache[name][0, 1:] for name in names])
    return [torch.cat(rows).detach().numpy() for rows in zip(*streams, strict=True)]
