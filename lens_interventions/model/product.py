"""Products with one float32 matrix, by the faster of two ways.

On a CPU, torch multiplies with MKL. On AMD's processors with AVX-512 this has about half of the
speed of oneDNN with a few rows, and on one of two with many, too. On one with AVX2 alone, both
multiply many rows alike, and MKL takes up to twice as long with a few, as in decoding. On Intel's,
both multiply many rows alike, and with one or two oneDNN takes up to twice as long.

The operator is a private one of torch, which `torch.compile` emits on a CPU. It is used only if it
runs, and if a test finds it as exact as the plain product and clearly faster. It takes the matrix
as it is, a transposed one too. A copy in the order in which it is read saves up to half of the time
of a few rows, and 10% or less of that of more than 100.
"""

import functools
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

# With more rows, a copy of the weight in order saves little.
_FEW_ROWS = 100
# The rows of a trial that stands for many, and the most columns of trials with many and with few.
_MANY_ROWS, _COLUMNS_FOR_MANY, _COLUMNS_FOR_FEW = 256, 512, 2048
# The rows of trials with few. Decoding one text multiplies two from the patch up.
_TRIED = (2, 8, 32, _FEW_ROWS)
# Smaller shares of an average count as none.
_NEGLIGIBLE = 1e-30
# Of fewer rows, MKL adds up all products of a row one after the other: with the embedding of
# SmolLM2, whose rows have much in common, errors of an average are then 200 times as large (5e-5).
_WELL_SUMMED = 8


def is_faster(weight: Float[Tensor, "d_out d_in"], *, known_faster: bool = False) -> bool:
    """Whether products of many rows with a weight are better done by oneDNN; see `are_faster`."""
    (answer,) = are_faster([weight], known_faster=known_faster)
    return answer


@torch.no_grad()
def are_faster(
    weights: Iterable[Float[Tensor, "_ _"]], *, rows: int | None = None, known_faster: bool = False
) -> Iterator[bool]:
    """Of each of several weights, whether products with it are better done by oneDNN.

    They are only for a contiguous float32 matrix on a CPU, outside `torch.autocast`.

    **Arguments:**

    - `weights`: the weights.
    - `rows`: how many rows a product has; None if many.
    - `known_faster`: whether oneDNN is taken without a trial of speed, which where the two are
        close may end in another way on another day.
    """
    few = rows is not None and rows <= _FEW_ROWS
    tried = min((n for n in _TRIED if rows is not None and n >= rows), default=_MANY_ROWS)
    exact: dict[int, bool] = {}
    for weight in weights:
        d_out, d_in = weight.shape
        # Of many rows, the number of columns says little.
        shape = min(d_out, _COLUMNS_FOR_FEW) if few else _COLUMNS_FOR_MANY, d_in
        better = _is_suited(weight)
        if better:
            try:
                if d_in not in exact:
                    exact[d_in] = _is_exact(d_in)
                better = exact[d_in] and (known_faster or _is_faster(shape, tried))
            except (AttributeError, NotImplementedError, RuntimeError):  # no such operator here
                better = exact[d_in] = False
        yield better


@torch.no_grad()
def in_order(weight: Float[Tensor, "d_out d_in"], rows: int) -> Tensor:
    """A weight for many fast products of so few rows that want no gradient.

    It is a copy in the order in which oneDNN reads it, if that saves a good part of the time, and
    the weight itself otherwise.
    """
    if rows > _FEW_ROWS or (rows == 1 and not _order_pays(weight.shape[1])):
        return weight
    # In the order for one row, oneDNN reads two rows, as under a patch, no faster than without it.
    return _in_order(weight, max(rows, 2))


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
    - `fast`: whether to multiply by oneDNN, if `is_faster` says so. If a gradient is wanted, the
        product is the plain one unless the weight is `constant`.
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
    if n < _WELL_SUMMED:
        rows = functional.pad(rows, (0, 0, 0, _WELL_SUMMED - n))
    return product(rows, weight.T, fast=fast)[:n].view(*x.shape[:-1], -1)


def product_dtype(weight: Float[Tensor, "_ _"]) -> torch.dtype:
    """The dtype of products with a weight: its own, unless `torch.autocast` chooses another."""
    device = weight.device.type
    # It leaves float64 alone, and does not know the meta device.
    if weight.dtype != torch.float64 and torch.amp.is_autocast_available(device):
        on = torch.is_autocast_enabled(device)
        return torch.get_autocast_dtype(device) if on else weight.dtype
    return weight.dtype


def _is_suited(weight: Tensor) -> bool:
    # Under autocast the model's own products are in half precision, which oneDNN's are not.
    plain = weight.dtype == torch.float32 == product_dtype(weight)
    return plain and weight.device.type == "cpu" and weight.is_contiguous()


def _in_order(weight: Tensor, rows: int) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight, rows)


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
    plain, fast = (product(x, weight, fast=fast) - exact for fast in (False, True))
    return float(fast.norm()) < 4 * float(plain.norm())


@functools.cache
def _is_faster(shape: tuple[int, int], rows: int) -> bool:
    """Whether the faster product takes at most 0.9 of the plain one's processor time.

    The processor decides it, the shape of the weight and the number of rows. For a few rows, the
    weight is as `in_order` gives it. Each is tested once in a process, so that equal calls have
    equal results; all shapes of a small model take up to a tenth of a second.
    """
    d_out, d_in = shape
    x, weight = _factors(rows, d_in, d_out)
    read = in_order(weight, rows)
    plain, fast = _least_seconds(lambda: product(x, weight), lambda: product(x, read, fast=True))
    return fast < 0.9 * plain


@functools.cache
def _order_pays(d_in: int) -> bool:
    """Whether weights in order save a quarter of the time of two rows.

    Decoding one text multiplies two rows from the patch up. For a smaller gain it is not worth a
    copy of all weights.
    """
    x, weight = _factors(2, d_in, _COLUMNS_FOR_FEW)
    copy = _in_order(weight, 2)
    as_it_is, ordered = _least_seconds(lambda: _multiply(x, weight), lambda: _multiply(x, copy))
    return ordered < 0.75 * as_it_is


def _least_seconds(*trials: Callable[[], object]) -> list[float]:
    """Of each of several ways, the least processor time of ten in turns.

    Other work only adds to a time. By the clock on the wall, on a busy machine, all trials may be
    interrupted; Windows has no other clock that is fine enough.
    """
    rounds = ([_seconds(trial) for trial in trials] for _ in range(10))
    return [min(times) for times in zip(*rounds, strict=True)]


# On Windows the time of a thread advances in ticks of 16 ms, longer than a trial.
_clock = time.perf_counter if sys.platform == "win32" else time.thread_time


def _seconds(function: Callable[[], object]) -> float:
    start = _clock()
    function()
    return _clock() - start
