"""Faster products for a model's linear modules."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from .kinds import ReadableModel
from .packed_linear import PackedLinear
from .product import product
from .product_trials import are_faster, are_faster_packed, in_order
from .replaced_forwards import replaced_forwards

Forwards = list[tuple[nn.Linear, Callable[..., Any]]]

# Fewer rows are over sooner than a trial of which product is the faster one.
_MANY_ROWS = 512


def fast_blocks(bridge: ReadableModel, rows: int) -> AbstractContextManager[None]:
    """Inside, the blocks multiply by the faster product, by `fast_forwards`.

    This applies if many rows go through them in all, and no graph is kept: weights may want a
    gradient, which that product does not have.

    **Arguments:**

    - `bridge`: the model.
    - `rows`: about how many rows go through all blocks.
    """
    if rows < _MANY_ROWS or torch.is_grad_enabled():
        return nullcontext()
    return replaced_forwards(fast_forwards(bridge.blocks))


def decoding_forwards(model: nn.Module, rows: int) -> Forwards:
    """The linear modules that have a faster product for `rows` texts, each with a forward by it.

    They are for many products without gradients. Weights may be copied, and edits of them have no
    effect while these forwards are in place.
    """
    linears = _linears(model)
    packed = are_faster_packed([linear.weight for linear in linears], rows=rows)
    to_pack = [linear for linear, faster in zip(linears, packed, strict=True) if faster]
    return [
        *((linear, PackedLinear(linear)) for linear in to_pack),
        *(
            (linear, partial(forward, weight=in_order(linear.weight, rows)))
            for linear, forward in fast_forwards(model, rows=rows)
            if linear not in to_pack
        ),
    ]


def fast_forwards(
    model: nn.Module,
    *,
    rows: int | None = None,
    constant: bool = False,
    known_faster: bool = False,
) -> Forwards:
    """The linear modules that have a faster product, each with a forward by it.

    They are those of a float32 model on a CPU, if oneDNN is faster there.

    **Arguments:**

    - `model`: a model whose modules have their own weights.
    - `rows`: as in `are_faster`.
    - `constant`: as in `product`, for the gradients of what goes through them.
    - `known_faster`: as in `are_faster`.
    """
    linears = _linears(model)
    weights = [linear.weight for linear in linears]
    faster = are_faster(weights, rows=rows, known_faster=known_faster)
    return [
        (
            linear,
            partial(
                product,
                weight=linear.weight.detach(),
                bias=None if linear.bias is None else linear.bias.detach(),
                fast=True,
                constant=constant,
            ),
        )
        for linear, fast in zip(linears, faster, strict=True)
        if fast
    ]


def _linears(model: nn.Module) -> list[nn.Linear]:
    # A subclass, or a module that was given another forward, may do more.
    return [
        module
        for module in model.modules()
        if type(module) is nn.Linear and "forward" not in vars(module)
    ]
