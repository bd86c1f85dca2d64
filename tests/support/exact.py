"""Float64 models that compute in float64 throughout."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor

from lens_interventions.model.capabilities import recall
from lens_interventions.model.kinds import ReadableModel

# Attention of these casts queries and keys to float32, whatever the model's dtype.
FLOAT32_ATTENTION = {"codegen", "gpt_neo", "gptj"}


def tolerance(arch: str) -> float:
    """Largest difference in logits between two right computations in `float64_softmax`."""
    return 1e-4 if arch in FLOAT32_ATTENTION else 1e-9


def close(actual: Tensor, expected: Tensor, atol: float = 1e-9) -> None:
    """Assert that all values are within `atol` of each other."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


# The names of the contexts below that are open.
_open: list[str] = []


def arithmetic() -> frozenset[str]:
    """How float64 models compute now. What they are found to be once is kept for each way."""
    return frozenset(_open)


@contextmanager
def _arithmetic_of_its_own(name: str) -> Iterator[None]:
    def recall_here(bridge: ReadableModel, question: str, find: Callable[[], Tensor]) -> Tensor:
        return recall(bridge, f"{question}, {sorted(arithmetic())}", find)

    _open.append(name)
    try:
        # A mean that was measured with rounding is 1e-8 from an exact one.
        with mock.patch("lens_interventions.intervention.mean_residuals.recall", recall_here):
            yield
    finally:
        _open.remove(name)


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

    with (
        mock.patch.object(torch.nn.functional, "softmax", exact),
        _arithmetic_of_its_own("exact softmaxes"),
    ):
        yield


@contextmanager
def no_rounding() -> Iterator[None]:
    """Float64 tensors stay in float64 where models ask for float32.

    RMS norms do, to be safe in half precision. In a float64 model it is a rounding of 1e-7, which
    small differences of losses are made of.
    """
    to, single = Tensor.to, Tensor.float

    def exact_to(tensor: Tensor, *args: object, **kwargs: object) -> Tensor:
        asked = kwargs.get("dtype", args[0] if args else None)
        if tensor.dtype == torch.float64 and asked == torch.float32:
            return tensor
        return to(tensor, *args, **kwargs)

    def exact_float(tensor: Tensor, *args: object, **kwargs: object) -> Tensor:
        return tensor if tensor.dtype == torch.float64 else single(tensor, *args, **kwargs)

    with (
        mock.patch.multiple(Tensor, to=exact_to, float=exact_float),
        _arithmetic_of_its_own("no rounding"),
    ):
        yield
