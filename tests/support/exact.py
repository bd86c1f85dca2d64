"""Float64 models that compute in float64 throughout."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor

# Attention of these casts queries and keys to float32, whatever the model's dtype.
FLOAT32_ATTENTION = {"codegen", "gpt_neo", "gptj"}


def tolerance(arch: str) -> float:
    """Largest difference in logits between two right computations in `float64_softmax`."""
    return 1e-4 if arch in FLOAT32_ATTENTION else 1e-9


def close(actual: Tensor, expected: Tensor, atol: float = 1e-9) -> None:
    """Assert that all values are within `atol` of each other."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


@contextmanager
def float64_softmax() -> Iterator[None]:
    """Softmaxes of float64 scores stay in float64.

    Models ask for float32 there, to be safe in half precision. In a float64 model it is a rounding,
    of 1e-7, that depends on how many masked keys are summed along, and would hide smaller errors.
    """
    softmax = torch.nn.functional.softmax

    def exact(
        scores: Tensor,
        dim: int | None = None,
        _stacklevel: int = 3,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        if scores.dtype == torch.float64:
            dtype = None
        return softmax(scores, dim=dim, dtype=dtype)

    with mock.patch.object(torch.nn.functional, "softmax", exact):
        yield
