"""How precise a floating-point dtype is."""

import torch


def is_half(dtype: torch.dtype) -> bool:
    """Whether a dtype has fewer digits than float32."""
    return dtype not in (torch.float32, torch.float64)


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The dtype to compute in: float32 for half precision, which loses too much in long sums."""
    return torch.promote_types(dtype, torch.float32)
