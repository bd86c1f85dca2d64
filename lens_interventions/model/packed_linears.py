"""Faster products for a model's linear modules, for the duration of one call."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import repeat
from typing import Any

import torch
from torch import nn

from .kinds import ReadableModel
from .partial_run import BLOCK_ROWS, replaced_forwards
from .product import packed_copies, product

Forwards = list[tuple[nn.Module, Callable[..., Any]]]

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
    """Inside, the linear modules of a model have `packed_forwards`.

    Inside, edits of weights and biases have no effect.
    """
    with replaced_forwards(packed_forwards(model, rows)):
        yield


def packed_forwards(
    model: nn.Module, rows: int, *, gradients: bool = False, known_faster: bool = False
) -> Forwards:
    """The linear modules of a model, each with a forward by a packed copy of its weight.

    There are some for a float32 model on a CPU, if they are faster.

    **Arguments:**

    - `model`: a model whose modules have their own weights.
    - `rows`: how many rows go through them at a time.
    - `gradients`: copy for the gradients of what goes through them as well. The weights themselves
        must not want any.
    - `known_faster`: as in `packed_copy`.
    """
    linears, room = [], _COPY_BYTES
    for module in reversed(list(model.modules())):
        # A subclass, or a module that was given another forward, may do more.
        if type(module) is nn.Linear and "forward" not in vars(module):
            size = module.weight.numel() * module.weight.element_size() * (1 + gradients)
            if size <= room:
                room -= size
                linears.append(module)
    copies = packed_copies([linear.weight for linear in linears], rows, known_faster=known_faster)
    turned = (linear.weight.T.contiguous() for linear in linears)
    backs = packed_copies(turned, rows, known_faster=known_faster) if gradients else repeat(None)
    return [
        (
            linear,
            partial(product, weight=linear.weight, packed=packed, back=back, bias=linear.bias),
        )
        for linear, packed, back in zip(linears, copies, backs, strict=gradients)
        if packed is not None
    ]
