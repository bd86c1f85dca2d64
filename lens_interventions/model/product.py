"""Products of many rows with one float32 matrix, by the faster of two ways.

On a CPU, torch multiplies with MKL. On AMD's processors this has about two thirds of the speed of
oneDNN, if the matrix was first copied into the order in which it is read. The copy costs as much as
the product of some 150 rows, so it is made for one call of the library and dropped with it. So no
copy can be out of date when the weights of a model are edited.

The operators are private ones of torch, which `torch.compile` emits on a CPU. They are used only if
they run, and if a test finds them as exact as the plain product and clearly faster.
"""

import functools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def packed_copy(
    weight: Float[Tensor, "d_out d_in"], rows: int, *, known_faster: bool = False
) -> Tensor | None:
    """A copy of a weight for the faster product; None if the plain product is as good.

    **Arguments:**

    - `weight`: copied if it is a contiguous float32 matrix on a CPU, outside `torch.autocast`.
    - `rows`: how many rows will be multiplied with it at a time.
    - `known_faster`: whether the faster product is taken without a trial, which where the two are
        close may end in another way on another day.
    """
    (copy,) = packed_copies([weight], rows, known_faster=known_faster)
    return copy


@torch.no_grad()
def packed_copies(
    weights: Iterable[Float[Tensor, "_ _"]], rows: int, *, known_faster: bool = False
) -> Iterator[Tensor | None]:
    """`packed_copy` of each of several weights."""
    better: dict[int, bool] = {}
    for weight in weights:
        if not _is_suited(weight):
            yield None
            continue
        d_in = weight.shape[1]
        try:
            if d_in not in better:
                better[d_in] = _is_exact(d_in) and (known_faster or _is_faster(d_in, rows))
            yield _pack(weight, rows) if better[d_in] else None
        except (AttributeError, NotImplementedError, RuntimeError):  # no such operators here
            yield None


def is_faster_packed(weight: Float[Tensor, "d_out d_in"], rows: int) -> bool:
    """Whether products of this many rows with a weight are better done with its packed copy."""
    d_in = weight.shape[1]
    try:
        return _is_suited(weight) and _is_exact(d_in) and _is_faster(d_in, rows)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False


def product(
    x: Float[Tensor, "*row d_in"],
    weight: Float[Tensor, "d_out d_in"],
    packed: Tensor | None = None,
    *,
    back: Tensor | None = None,
    bias: Float[Tensor, " d_out"] | None = None,
    out: Float[Tensor, "row d_out"] | None = None,
) -> Float[Tensor, "*row d_out"]:
    """`x @ weight.T + bias`.

    **Arguments:**

    - `x`, `weight`: the factors.
    - `packed`: the weight's `packed_copy`. If a gradient is wanted, the product is the plain one
        unless there is `back`.
    - `back`: the `packed_copy` of the transposed weight, for the gradient of `x`. It says that
        weight and bias want none.
    - `bias`: added to each row.
    - `out`: a buffer for the product of a matrix of rows, used if there is no gradient.
    """
    graph = x.requires_grad and torch.is_grad_enabled()
    if packed is not None and x.dtype == weight.dtype:
        if not graph:
            fast = _multiply(x, packed, bias)
            # Kept in one buffer, large products do not make the allocator return pages and fault
            # them in again.
            return fast if out is None else out.copy_(fast)
        if back is not None:
            return _ProductWithGradient.apply(x, packed, back, bias)
    if out is None:
        return functional.linear(x, weight, bias)
    if product_dtype(weight) != weight.dtype:
        # Autocast does not reach products that write to a buffer.
        return out.copy_(functional.linear(x, weight, bias))
    if bias is None:
        return torch.mm(x, weight.T, out=out)
    return torch.addmm(bias, x, weight.T, out=out)


def weighted_rows(
    x: Float[Tensor, "row d_out"], weight: Float[Tensor, "d_out d_in"], *, fast: bool
) -> Float[Tensor, "row d_in"]:
    """`x @ weight`.

    If `fast`, as it is where the weight has a packed copy, this is the faster product too. It takes
    the matrix as it is, since a copy of the transposed one would not pay.
    """
    turned = weight.T
    return product(x, turned, turned if fast else None)


def product_dtype(weight: Float[Tensor, "_ _"]) -> torch.dtype:
    """The dtype of products with a weight: its own, unless `torch.autocast` chooses another."""
    device = weight.device.type
    # It leaves float64 alone.
    if weight.dtype != torch.float64 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return weight.dtype


def _is_suited(weight: Tensor) -> bool:
    # Under autocast the model's own products are in half precision, which the copy's are not.
    plain = weight.dtype == torch.float32 == product_dtype(weight)
    return plain and weight.device.type == "cpu" and weight.is_contiguous()


def _multiply(x: Tensor, packed: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x.contiguous(), packed, bias, "none", [], "")


class _ProductWithGradient(torch.autograd.Function):
    """The faster product with a constant weight, whose gradient is a faster product too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, back: Tensor, bias: Tensor | None) -> Tensor:
        ctx.back = back
        return _multiply(x, packed, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _multiply(gradient, ctx.back), None, None, None


def _pack(weight: Float[Tensor, "d_out d_in"], rows: int) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight, rows)


def _factors(
    rows: int, d_in: int, d_out: int
) -> tuple[Float[Tensor, "row d_in"], Float[Tensor, "d_out d_in"]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, d_in, generator=generator)
    return x, torch.randn(d_out, d_in, generator=generator)


def _is_exact(d_in: int) -> bool:
    """Whether the faster product rounds as the plain one does.

    This is tested in every call, because the precision of products is a setting that may change.
    """
    x, weight = _factors(16, d_in, 256)
    exact = x.double() @ weight.double().T
    plain, fast = product(x, weight) - exact, product(x, weight, _pack(weight, len(x))) - exact
    return float(fast.norm()) < 4 * float(plain.norm())


@functools.cache
def _is_faster(d_in: int, rows: int) -> bool:
    """Whether the faster product takes at most 0.9 of the plain one's processor time.

    This is tested once in a process, in some 50 milliseconds, so that equal calls have equal
    results.
    """
    x, weight = _factors(rows, d_in, 2048)
    packed = _pack(weight, rows)
    trials = [lambda: product(x, weight), lambda: product(x, weight, packed)]
    # The ways take turns, and the least time of each counts, since other work only adds to a time.
    # By the clock on the wall, on a busy machine, six trials in a row may all be interrupted.
    plain, fast = map(min, zip(*(map(_seconds, trials) for _ in range(6)), strict=True))
    return fast < 0.9 * plain


def _seconds(function: Callable[[], object]) -> float:
    start = time.thread_time()
    function()
    return time.thread_time() - start
