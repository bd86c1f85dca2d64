"""Trainable parameters of a reader that adapts, rescaled to order one."""

from collections.abc import Mapping

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ..._counter_random import random_normal
from ...model.fingerprint import fingerprint
from ...model.other_weights import matrix
from ...model.precision import at_least_float32
from ..adapted_reader import Adapt, AdaptedReader, adapted_modules

# Keeps these draws apart from those for the write's own start.
_SEED = 2


class ReaderParameters:
    """Leaves for an optimizer, and the reader that they stand for.

    Leaves of size one change a matrix by about the size of its entries, so a learning rate means
    the same on every model. At the start the upper factors are zero: the reader changes nothing.

    Attributes:
        leaves: both factors of every update, by names such as "reader.down.22.q".
    """

    def __init__(
        self,
        bridge: TransformerBridge,
        adapt: Adapt,
        layer: int,
        *,
        rank: int,
        seed: int,
    ) -> None:
        """
        **Arguments:**

        - `bridge`: whose matrices are updated.
        - `adapt`: which of them.
        - `layer`: the lowest block that is changed.
        - `rank`: of every update.
        - `seed`: of the start of the lower factors.
        """
        self._fingerprint = fingerprint(bridge)
        self._sizes: dict[str, Tensor] = {}
        self.leaves: dict[str, Tensor] = {}
        for number, (key, linear) in enumerate(adapted_modules(bridge, adapt, layer).items()):
            weight = matrix(linear).detach()
            wide = at_least_float32(weight.dtype)
            d_out, d_in = weight.shape
            drawn = random_normal(d_in, seed + _SEED, torch.tensor([number]), torch.arange(rank))
            start = {"down": drawn / rank**0.5, "up": torch.zeros(d_out, rank)}
            for kind, value in start.items():
                leaf = value.to(weight.device, wide).requires_grad_()
                self.leaves[f"reader.{kind}.{key}"] = leaf
            self._sizes[key] = weight.to(wide).square().mean().sqrt()

    def reader(self, leaves: Mapping[str, Tensor]) -> AdaptedReader:
        """The reader, whose tensors are a differentiable function of the values of `leaves`."""
        return AdaptedReader(
            down={key: leaves[f"reader.down.{key}"] for key in self._sizes},
            up={key: leaves[f"reader.up.{key}"] * size for key, size in self._sizes.items()},
            fingerprint=self._fingerprint,
        )
