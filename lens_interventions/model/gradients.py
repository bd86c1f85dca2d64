"""Whether gradients can be taken, through which tensors, and which parameters ask for them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary
from transformer_lens.model_bridge import TransformerBridge

from .replaced_forwards import KERNELS_END, has_kernels
from .restoration import Change

# The callers that hold each parameter, since threads may run two models that share weights.
_holders = WeakIdKeyDictionary()
_changing = threading.Lock()


def require_gradients(caller: str, bridge: TransformerBridge) -> None:
    """Raise `ValueError` where the model may give none.

    That is inside `torch.inference_mode`, for a model that was loaded there, and for one with
    kernels of transformers.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError(f"{caller} needs gradients: leave torch.inference_mode")
    if any(parameter.is_inference() for parameter in _parameters(bridge)):
        raise ValueError(
            f"{caller} needs gradients, and the model was loaded inside torch.inference_mode, so "
            "its weights cannot have any: load it outside"
        )
    if has_kernels(bridge):
        raise ValueError(
            f"{caller} needs gradients, and transformers runs kernels in place of some modules, "
            f"which may give none ({KERNELS_END})"
        )


def _parameters(bridge: TransformerBridge) -> list[Tensor]:
    """Each once. Where other weights are on, such as a reader's, some are plain tensors."""
    modules = (bridge, bridge.original_model)
    return list({id(p): p for module in modules for p in module.parameters()}.values())


def replace_inference_tensors(instance: Any) -> None:
    """Replace a dataclass's tensors that were made in `torch.inference_mode` by ordinary copies.

    Autograd refuses such tensors, long after they were made.
    """
    for field in fields(instance):
        value = getattr(instance, field.name)
        if isinstance(value, Tensor):
            object.__setattr__(instance, field.name, _ordinary(value))


def _ordinary(tensor: Tensor) -> Tensor:
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(False):
        return tensor.clone()


@contextmanager
def frozen(bridge: TransformerBridge) -> Iterator[None]:
    """No parameter of the model asks for a gradient inside; flags come back as they were.

    The flags of parameters that two models share come back when the last `with` block ends.
    """
    parameters, holder = _parameters(bridge), object()

    def give_back() -> None:
        with _changing:
            for parameter in parameters:
                if (holders := _holders.get(parameter)) is None:
                    continue
                holders.discard(holder)
                if not holders:
                    parameter.requires_grad_(True)
                    del _holders[parameter]

    change = Change(give_back)
    try:
        with _changing:
            for parameter in parameters:
                if parameter.requires_grad or parameter in _holders:
                    _holders.setdefault(parameter, set()).add(holder)
                    parameter.requires_grad_(False)
        yield
    finally:
        change.restore()
