"""A pretended accelerator: tensors in the memory of the CPU that obey the rules of another device.

Nothing here shows what CUDA or MPS compute, or how fast. It shows what they refuse: tensors of two
devices in one operation, numpy arrays of their tensors, kernels of oneDNN and, on MPS, float64. It
does not show which operations a device lacks.
What is "on" the device is a mark on a tensor's storage, so views share it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

_BETWEEN_DEVICES = {"copy_", "_foreach_copy_"}
_WITHOUT_NUMBERS = {"cat", "stack"}
_INDEXED = {"index", "_unsafe_index"}
_INDEXED_PUT = {"index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put"}
_GIB = 2**30
# What is asked of a tensor: its device, or whether that is of a kind.
_ASKED = {
    torch.Tensor.device.__get__: "device",
    **{getattr(torch.Tensor, f"is_{kind}").__get__: kind for kind in ("cpu", "cuda", "mps")},
}


@contextmanager
def other_device(kind: str) -> Iterator[torch.device]:
    """In the block, `kind` ("cuda" or "mps") is a device of this machine.

    Only in this thread, and only for what is made in the block.
    """
    device = torch.device(kind, 0)
    rules = _Rules(device)
    memory = patch.object(torch.cuda, "mem_get_info", lambda _device=None: (8 * _GIB, 16 * _GIB))
    with memory, rules, _Placement(rules):
        yield device


def _is_there(tensor: Tensor) -> bool:
    return getattr(tensor.untyped_storage(), "on_other_device", False)


def _tensors(tree: object) -> list[Tensor]:
    """Those in arguments or a result. `tree_leaves` of torch would double an operation's time."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, tuple | list):
        return []
    return [tensor for part in tree for tensor in _tensors(part)]


class _Rules(TorchDispatchMode):
    """What the device refuses, operation by operation.

    Attributes:
        device: the device.
        within: whether the running operation of Python has only tensors of the device, so what it
            makes from nothing belongs there too.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.within = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name, given = func.overloadpacket.__name__, _tensors((args, kwargs))
        there = [tensor for tensor in given if _is_there(tensor)]
        # A number on the CPU may go with any tensor, in most operations.
        numbers = name not in _WITHOUT_NUMBERS
        here = [x for x in given if not (_is_there(x) or (numbers and not x.dim()))]
        if there and name.startswith("mkldnn"):
            raise NotImplementedError(f"{func} does not run on {self.device}")
        if there and here and not self._may_mix(name, args):
            shapes = [(str(tensor.device), tuple(tensor.shape)) for tensor in given]
            raise RuntimeError(f"{func} got tensors of two devices: {shapes}")
        made = func(*args, **kwargs)
        if name not in _BETWEEN_DEVICES and (there or (self.within and not given)):
            self.put_there(made)
        return made

    def put_there(self, tree: object) -> None:
        """Mark all tensors in a tree as on the device."""
        for tensor in _tensors(tree):
            if self.device.type == "mps" and tensor.dtype == torch.float64:
                raise TypeError("MPS has no float64")
            tensor.untyped_storage().on_other_device = True

    def _may_mix(self, name: str, args: tuple[Any, ...]) -> bool:
        if name in _BETWEEN_DEVICES:
            return True
        # Indices may lie on the CPU; what is read or written may not.
        values = {**dict.fromkeys(_INDEXED, args[:1]), **dict.fromkeys(_INDEXED_PUT, args[::2])}
        named = _tensors(values[name]) if name in values else []
        return bool(named) and all(_is_there(x) or not x.dim() for x in named)


class _Move(torch.autograd.Function):
    """A copy on the other side, whose gradient comes back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, rules: _Rules, there: bool) -> Tensor:
        ctx.rules, ctx.there = rules, _is_there(tensor)
        return _copied(tensor, rules, there)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _copied(gradient, ctx.rules, ctx.there), None, None


def _copied(tensor: Tensor, rules: _Rules, there: bool) -> Tensor:
    with _disable_current_modes():
        copy = tensor.detach().clone()
    if there:
        rules.put_there(copy)
    return copy


class _Placement(TorchFunctionMode):
    """Where tensors are, for those who ask, make one on a device, or move one."""

    def __init__(self, rules: _Rules) -> None:
        super().__init__()
        self._rules, self._device = rules, rules.device

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        owner = args[0] if args and isinstance(args[0], Tensor) else None
        if owner is not None:
            there = _is_there(owner)
            asked = _ASKED.get(func)
            if asked == "device":
                return self._device if there else func(owner)
            if asked is not None:
                return asked == (self._device.type if there else "cpu")
            if func is torch.Tensor.get_device:
                return 0 if there else -1
            if func in (torch.Tensor.numpy, torch.Tensor.__array__) and there:
                raise TypeError(f"a tensor on {self._device} has no numpy array: call .cpu() first")
            if func is torch.Tensor.cpu:
                return self._moved(owner, False)
            if func is torch.Tensor.to:
                return self._to(*args, **kwargs)
            if func is torch.Tensor.new_tensor and there and kwargs.get("device") is None:
                return self._moved(func(*args, **kwargs), True)
        if kwargs.get("device") is not None and self._names(kwargs["device"]):
            generator = kwargs.get("generator")
            if generator is not None:
                raise RuntimeError(f"{func} got two devices: {self._device} and a generator's")
            made = func(*args, **{**kwargs, "device": "cpu"})
            if func in (torch.as_tensor, torch.asarray):  # which may be the tensor that was given
                return self._moved(made, True)
            self._rules.put_there(made)
            return made
        given = _tensors((args, kwargs))
        before = self._rules.within
        self._rules.within = (
            kwargs.get("device") is None and bool(given) and all(map(_is_there, given))
        )
        try:
            return func(*args, **kwargs)
        finally:
            self._rules.within = before

    def _names(self, device: object) -> bool:
        kind = device.type if isinstance(device, torch.device) else str(device).split(":")[0]
        return kind == self._device.type

    def _to(self, owner: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        there = _is_there(owner)
        given = [*args, *(kwargs.pop(name) for name in ("other", "device") if name in kwargs)]
        kwargs.pop("non_blocking", None)
        for value in given:
            if isinstance(value, Tensor):
                there = _is_there(value)
                kwargs["dtype"] = value.dtype
            elif isinstance(value, str | torch.device):
                there = self._names(value)
            elif isinstance(value, torch.dtype):
                kwargs["dtype"] = value
        # First the dtype, where the tensor is: a device that lacks it cannot make it on the way.
        changed = torch.Tensor.to(owner, **{"dtype": owner.dtype, **kwargs})
        return self._moved(changed, there)

    def _moved(self, tensor: Tensor, there: bool) -> Tensor:
        return tensor if _is_there(tensor) == there else _Move.apply(tensor, self._rules, there)
