"""Trainable parameters of a learned write, rescaled to order one."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..._counter_random import random_normal
from ...model.precision import at_least_float32
from ..bound_patch import BoundPatch
from ..learned_write import LearnedWrite
from ..sources import SOURCES
from .corpus import TrainingCorpus
from .options import TrainingOptions


class WriteParameters:
    """Leaves for an optimizer, and the write that they stand for.

    The map takes embeddings of typical size to residuals of typical size, so that a learning rate
    means the same on every model and layer. At the start the upper factor is zero, and so are the
    map, bias and gate: the write adds exactly nothing. A write of a given strength is that number
    times the identity, and has no leaves.

    Attributes:
        leaves: by name: some of down, up, bias, gate_weight and gate_bias.
    """

    def __init__(
        self,
        bound: BoundPatch,
        corpus: TrainingCorpus,
        options: TrainingOptions,
        *,
        rank: int | None,
        strength: float | None,
        seed: int,
    ) -> None:
        """
        **Arguments:**

        - `bound`: the patch, whose write has no tensors yet.
        - `corpus`: shows the typical size of a residual.
        - `options`: whether there is a bias and a gate, and what the map reads.
        - `rank`: of the map; None is a full one.
        - `strength`: with it nothing of the write is trained.
        - `seed`: of the start of the map's lower factor.
        """
        patch = bound.patch
        table = bound.embeddings[patch.layers[0]]
        assert isinstance(patch.mode, LearnedWrite)
        reads_tokens = SOURCES[patch.mode.source].role != "no news"
        n_layers, d_model = len(patch.layers), table.weight.shape[-1]
        dtype, device = at_least_float32(table.weight.dtype), table.weight.device
        self.leaves: dict[str, Tensor] = {}
        self._fixed: dict[str, Tensor] = {}
        if strength is not None:
            if reads_tokens:
                identity = torch.eye(d_model, dtype=dtype, device=device)
                self._fixed["up"] = (strength * identity).repeat(n_layers, 1, 1)
            return
        sizes = corpus.typical_sizes(patch.layers, options.first_position)
        if options.scale == "norm":
            lengths = sizes * d_model**0.5
        else:
            lengths = table.typical_length.expand_as(sizes)
        self._sizes = {
            "down": 1 / lengths[:, None, None],
            "up": sizes[:, None, None],
            "bias": sizes[:, None],
        }
        start: dict[str, Tensor] = {}
        if reads_tokens and rank is not None:
            row = torch.arange(n_layers * d_model)
            drawn = random_normal(rank, seed, row).view(n_layers, d_model, rank)
            # The lower factor maps embeddings of typical length to codes of length one.
            start["down"] = drawn / rank**0.5
        if reads_tokens:
            start["up"] = torch.zeros(n_layers, d_model if rank is None else rank, d_model)
            if rank is None:
                self._sizes["up"] = (sizes / lengths)[:, None, None]
        if options.bias:
            start["bias"] = torch.zeros(n_layers, d_model)
        if options.input_gate:
            start["gate_weight"] = torch.zeros(n_layers, d_model)
            start["gate_bias"] = torch.zeros(n_layers)
        self.leaves = {
            name: value.to(device, dtype).requires_grad_() for name, value in start.items()
        }

    def tensors(self, leaves: Mapping[str, Tensor]) -> dict[str, Tensor | None]:
        """The tensors of a `LearnedWrite`, a differentiable function of the values of `leaves`."""
        values: dict[str, Tensor | None] = dict.fromkeys(("down", "up", "bias"))
        for name in self.leaves:
            leaf = leaves[name]
            size = self._sizes.get(name)
            values[name] = leaf if size is None else leaf * size.to(leaf)
        return {**values, **self._fixed}
