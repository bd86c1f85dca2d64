"""Products with one float32 matrix, in one of three ways.

On a CPU, torch multiplies with MKL. oneDNN may be faster, and so may MKL with a weight that was
packed for a number of rows; `product_trials` finds out which is. Both are private operators of
torch, which `torch.compile` emits on a CPU. oneDNN takes the matrix as it is, a transposed one too,
or a copy in the order in which it is read.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

# Smaller shares of an average count as none.
_NEGLIGIBLE = 1e-30
# MKL adds up all products of a row one after the other if there are fewer than four rows. With
# several threads it does the same for the last of a few rows, unless their number is a multiple of
# four. With the embedding of SmolLM2, whose rows have much in common, errors of an average are then
# 200 times as large (5e-5).
_WELL_SUMMED = 8


def product(
    x: Float[Tensor, "*row d_in"],
    weight: Float[Tensor, "d_out d_in"],
    *,
    fast: bool = False,
    constant: bool = False,
    bias: Float[Tensor, " d_out"] | None = None,
    out: Float[Tensor, "row d_out"] | None = None,
) -> Float[Tensor, "*row d_out"]:
    """`x @ weight.T + bias`.

    **Arguments:**

    - `x`, `weight`: the factors.
    - `fast`: whether to multiply by oneDNN, if `product_trials.is_faster` says so. If a gradient is
        wanted, the product is the plain one unless the weight is `constant`.
    - `constant`: that weight and bias want no gradient, so that of `x` may be a fast product too.
    - `bias`: added to each row.
    - `out`: a buffer for the product of a matrix of rows, used if there is no gradient.
    """
    graph = x.requires_grad and torch.is_grad_enabled()
    if fast and x.dtype == weight.dtype:
        if not graph:
            found = _multiply(x, weight, bias)
            # Kept in one buffer, large products do not make the allocator return pages and fault
            # them in again.
            return found if out is None else out.copy_(found)
        if constant:
            return _ProductWithGradient.apply(x, weight, bias)
    if out is None:
        return functional.linear(x, weight, bias)
    if product_dtype(weight) != weight.dtype:
        # Autocast does not reach products that write to a buffer.
        return out.copy_(functional.linear(x, weight, bias))
    if bias is None:
        return torch.mm(x, weight.T, out=out)
    return torch.addmm(bias, x, weight.T, out=out)


def weighted_rows(
    x: Float[Tensor, "*row d_out"], weight: Float[Tensor, "d_out d_in"], *, fast: bool
) -> Float[Tensor, "*row d_in"]:
    """`x @ weight`, with `fast` as in `product`, for `x` of probabilities or their differences.

    Numbers below 1e-30 count as 0, and get no gradient. An average of rows is the same without
    them, and with denormal ones (below 1e-38) a product takes up to sixty times as long on Intel's
    processors.
    """
    if x.device.type != "cpu":
        return product(x, weight.T, fast=fast)
    rows = torch.hardshrink(x, _NEGLIGIBLE).reshape(-1, len(weight))
    n = len(rows)
    if missing := -n % _WELL_SUMMED:
        rows = functional.pad(rows, (0, 0, 0, missing))
    return product(rows, weight.T, fast=fast)[:n].view(*x.shape[:-1], -1)


def ordered(weight: Float[Tensor, "d_out d_in"], rows: int) -> Tensor:
    """A copy of a weight in the order in which oneDNN reads it for so many rows."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, rows)


def packed(weight: Float[Tensor, "d_out d_in"], rows: int) -> Tensor:
    """A copy of a weight in the order in which MKL reads it, for products of just so many rows."""
    return torch.ops.mkl._mkl_reorder_linear_weight(weight, rows)


def packed_product(
    x: Float[Tensor, "*row d_in"],
    copy: Tensor,
    weight: Float[Tensor, "d_out d_in"],
    bias: Float[Tensor, " d_out"] | None = None,
) -> Float[Tensor, "*row d_out"]:
    """`x @ weight.T + bias` without a gradient, by MKL and a copy of the weight.

    **Arguments:**

    - `x`, `weight`, `bias`: the factors, and what is added to each row.
    - `copy`: `packed(weight, rows)`, for as many rows as `x` has.
    """
    rows = x.numel() // x.shape[-1]
    return torch.ops.mkl._mkl_linear(x.contiguous(), copy, weight, bias, rows)


def product_dtype(weight: Float[Tensor, "_ _"]) -> torch.dtype:
    """The dtype of products with a weight: its own, unless `torch.autocast` chooses another."""
    device = weight.device.type
    # It leaves float64 alone, and does not know the meta device.
    if weight.dtype != torch.float64 and torch.amp.is_autocast_available(device):
        on = torch.is_autocast_enabled(device)
        return torch.get_autocast_dtype(device) if on else weight.dtype
    return weight.dtype


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "none", [], "")


class _ProductWithGradient(torch.autograd.Function):
    """The faster product with a constant weight, whose gradient is a faster product too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return _multiply(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _multiply(gradient, ctx.weight.T), None, None
