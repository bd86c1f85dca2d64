"""A model's linear modules, multiplied by the faster product for as long as one call lasts."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .partial_run import replaced_forwards
from .product import packed_copies, packed_product, suits_packed

# What the copies of a model's weights may take in all; the last modules come first.
_COPY_BYTES = 2**30

# Modules that the models of transformers give the same rows, one after the other.
_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


@contextmanager
def packed_linears(model: nn.Module, rows: int) -> Iterator[None]:
    """Inside, the linear modules of a model multiply with packed copies of their weights.

    Those of a float32 model on a CPU, where that is faster. Modules that get the same rows share
    one product. Edits of the weights count again outside.

    **Arguments:**

    - `model`: whose modules have their own weights.
    - `rows`: how many rows go through them at a time.
    """
    chosen, room = [], _COPY_BYTES
    for linears in reversed(_groups(model)):
        size = sum(linear.weight.nbytes for linear in linears)
        if size <= room:
            room -= size
            chosen.append(linears)
    weights = (_joined([linear.weight for linear in linears]) for linears in chosen)
    forwards = []
    for linears, packed in zip(chosen, packed_copies(weights, rows), strict=True):
        if packed is not None:
            joint = _Joint(linears, packed)
            forwards += [(m, partial(joint.forward, i)) for i, m in enumerate(linears)]
    with replaced_forwards(forwards):
        yield


def _groups(model: nn.Module) -> list[list[nn.Linear]]:
    """The linear modules in the model's order, those that get the same rows together."""
    groups: dict[tuple[object, ...], list[nn.Linear]] = {}
    for name, module in model.named_modules():
        # A subclass, or a module that was given another forward, may do more.
        if type(module) is nn.Linear and "forward" not in vars(module):
            # The components of a bridge stand between a module and those in it.
            parent, _, own = re.sub(r"\._original_component\b", "", name).rpartition(".")
            together = next((names for names in _TOGETHER if own in names), (own,))
            key = parent, together, module.in_features, module.bias is None
            groups.setdefault(key, []).append(module)
    return list(groups.values())


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


class _Joint:
    """Linear modules whose products are one, if each gets the rows that the first got."""

    def __init__(self, linears: Sequence[nn.Linear], packed: Tensor) -> None:
        self._linears, self._packed = linears, packed
        biases = [linear.bias for linear in linears if linear.bias is not None]
        self._bias = _joined(biases) if biases else None
        self._rows: Tensor | None = None
        self._version = 0
        self._parts: tuple[Tensor, ...] = ()

    def forward(self, index: int, x: Float[Tensor, "*row d_in"]) -> Float[Tensor, "*row d_out"]:
        """What the module of this index makes of `x`."""
        linear = self._linears[index]
        if not suits_packed(x, linear.weight):
            return nn.functional.linear(x, linear.weight, linear.bias)
        if len(self._linears) == 1:
            return packed_product(x, self._packed, self._bias)
        # In inference mode tensors do not count their changes.
        same = x is self._rows and not x.is_inference() and x._version == self._version
        if not same:
            joined = packed_product(x, self._packed, self._bias)
            self._parts = joined.split([each.out_features for each in self._linears], dim=-1)
            self._rows, self._version = x, 0 if x.is_inference() else x._version
        part = self._parts[index]
        if index == len(self._linears) - 1:
            self._rows, self._parts = None, ()
        return part
