"""Faster products for a model's linear modules, for the duration of one call."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .kinds import ReadableModel
from .partial_run import BLOCK_ROWS, replaced_forwards
from .product import packed_copies, product

# The most memory that the copies of a model's weights may take; the last modules come first.
_COPY_BYTES = 2**30

# The copies cost as much as the products of some 150 rows, and save a third of a row's.
_MANY_ROWS = 512


def packed_blocks(bridge: ReadableModel, rows: int) -> AbstractContextManager[None]:
    """Inside, the blocks multiply with packed copies of their weights, as `packed_linears` does.

    This applies if many rows go through them in all, and no graph is kept: there a copy would stand
    for a weight that may want a gradient.

    **Arguments:**

    - `bridge`: the model.
    - `rows`: about how many rows go through all blocks.
    """
    if rows < _MANY_ROWS or torch.is_grad_enabled():
        return nullcontext()
    return packed_linears(bridge.blocks, BLOCK_ROWS)


@contextmanager
def packed_linears(model: nn.Module, rows: int) -> Iterator[None]:
    """Inside, the linear modules of a model multiply with packed copies of their weights.

    This applies to float32 models on a CPU, if it is faster. Inside, edits of the weights have no
    effect.

    **Arguments:**

    - `model`: a model whose modules have their own weights.
    - `rows`: how many rows go through them at a time.
    """
    linears, room = [], _COPY_BYTES
    for module in reversed(list(model.modules())):
        # A subclass, or a module that was given another forward, may do more.
        if type(module) is nn.Linear and "forward" not in vars(module):
            size = module.weight.numel() * module.weight.element_size()
            if size <= room:
                room -= size
                linears.append(module)
    copies = packed_copies([linear.weight for linear in linears], rows)
    forwards = [
        (linear, partial(_forward, linear, packed))
        for linear, packed in zip(linears, copies, strict=True)
        if packed is not None
    ]
    with replaced_forwards(forwards):
        yield


def _forward(
    module: nn.Linear, packed: Tensor, x: Float[Tensor, "*row d_in"]
) -> Float[Tensor, "*row d_out"]:
    return product(x, module.weight, packed, bias=module.bias)
