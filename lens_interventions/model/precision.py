"""The precision of dtypes, and the widest one of a device."""

import torch
from torch import Tensor


def is_half(dtype: torch.dtype) -> bool:
    """Whether a dtype has fewer digits than float32."""
    return dtype not in (torch.float32, torch.float64)


def rounds_factors() -> bool:
    """Whether the user lets products of float32 round their factors, as to TensorFloat-32."""
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # torch refuses to answer where its newer settings were used
        return True


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The dtype to compute in: float32 for half precision, which loses too much in long sums."""
    return torch.promote_types(dtype, torch.float32)


def widest(device: torch.device) -> torch.dtype:
    """The widest dtype of a device: float64, which MPS does not have."""
    return torch.float32 if device.type == "mps" else torch.float64


def as_double(values: Tensor) -> Tensor:
    """The numbers in float64, on the CPU if their device has none."""
    return (values if widest(values.device) == torch.float64 else values.cpu()).double()
