"""Parameters drawn anew: an initialization leaves many of them zero or equal."""

from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def drawn_anew(network: Network, seed: int) -> Network:
    """The network, with noise for its matrices, and added to its vectors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            # Gains and biases vary around their neutral value, which is 0 for Gemma's gains.
            neutral = parameter if parameter.ndim == 1 else 0.0
            parameter.copy_(neutral + 0.3 * noise)
    return network
