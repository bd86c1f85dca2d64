"""Kernels of transformers without the package that has them, which needs a GPU to run any."""

from contextlib import contextmanager
from types import MethodType

import torch


def norms_of(bridge):
    return [m for m in bridge.original_model.modules() if type(m).__name__ == "LlamaRMSNorm"]


@contextmanager
def kernels(bridge):
    """As transformers runs them: it marks the model, and binds a kernel's forward to the module."""
    norm = norms_of(bridge)[0]
    norm.forward = MethodType(lambda _module, x: torch.zeros_like(x), norm)
    bridge.original_model._use_kernels = True
    try:
        yield
    finally:
        del norm.forward, bridge.original_model._use_kernels
