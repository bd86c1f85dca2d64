"""Trials of which product with a matrix is the fastest on the processor at hand.

On AMD's processors with AVX-512, MKL has a third to two thirds of oneDNN's speed with a few rows,
and on one of three half of it with many, too; on another, seven tenths with many rows and a wide
weight. On one with AVX2 alone, both multiply many rows alike, and MKL takes up to twice as long
with a few, as in decoding. On Intel's, both multiply many rows alike, with one or two oneDNN takes
up to twice as long, and from four to some 100 rows MKL takes half to nine tenths of its time if the
weight is packed.

A faster product is used only if it runs, and if a test finds it as exact as the plain product and
clearly faster. For oneDNN, a copy of the weight in order saves up to half of the time of a few
rows, and 10% or less of that of more than 100.
"""

import functools
import sys
import time
from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from .product import ordered, packed, packed_product, product, product_dtype

# With more rows, a copy of the weight saves little.
_FEW_ROWS = 100
# The rows of a trial that stands for many, and the most columns of trials with many and with few.
# On one of AMD's, oneDNN takes 0.9 of MKL's time with 512 columns, 0.8 with 4,096 and 0.7 with the
# 49,152 of an unembedding.
_MANY_ROWS, _COLUMNS_FOR_MANY, _COLUMNS_FOR_FEW = 256, 4096, 2048
# The rows of trials with few. Decoding one text multiplies two from the patch up.
_TRIED = (2, 8, 32, _FEW_ROWS)


def is_faster(weight: Float[Tensor, "d_out d_in"], *, known_faster: bool = False) -> bool:
    """Whether products of many rows with a weight are better done by oneDNN; see `are_faster`."""
    (answer,) = are_faster([weight], known_faster=known_faster)
    return answer


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
    return _answers(
        weights, rows, _by_onednn, lambda shape, tried: known_faster or _is_faster(shape, tried)
    )


def are_faster_packed(weights: Iterable[Float[Tensor, "_ _"]], *, rows: int) -> Iterator[bool]:
    """Of each of several weights, whether so many rows are best multiplied by it if it is packed.

    They are only for a contiguous float32 matrix on a CPU, outside `torch.autocast`, and for at
    most 100 rows: with 160 texts, decoding was no faster than without packed weights.
    """
    return _answers(
        weights,
        rows,
        _by_packing,
        lambda shape, tried: rows <= _FEW_ROWS and _is_faster_packed(shape, tried),
    )


@torch.no_grad()
def in_order(weight: Float[Tensor, "d_out d_in"], rows: int) -> Tensor:
    """A weight for many fast products of so few rows that want no gradient.

    It is a copy in the order in which oneDNN reads it, if that saves a good part of the time, and
    the weight itself otherwise.
    """
    if rows > _FEW_ROWS or (rows == 1 and not _order_pays(weight.shape[1])):
        return weight
    # In the order for one row, oneDNN reads two rows, as under a patch, no faster than without it.
    return ordered(weight, max(rows, 2))


@torch.no_grad()
def _answers(
    weights: Iterable[Float[Tensor, "_ _"]],
    rows: int | None,
    multiply: Callable[[Tensor, Tensor], Tensor],
    is_faster: Callable[[tuple[int, int], int], bool],
) -> Iterator[bool]:
    """Of each of several weights, whether another product is as exact as the plain one and faster.

    `is_faster` is asked about a shape of weights and a number of rows that are not too many.
    """
    few = rows is not None and rows <= _FEW_ROWS
    tried = min((n for n in _TRIED if rows is not None and n >= rows), default=_MANY_ROWS)
    exact: dict[int, bool] = {}
    for weight in weights:
        d_out, d_in = weight.shape
        shape = min(d_out, _COLUMNS_FOR_FEW if few else _COLUMNS_FOR_MANY), d_in
        better = _is_suited(weight)
        if better:
            try:
                if d_in not in exact:
                    exact[d_in] = _is_exact(multiply, d_in)
                better = exact[d_in] and is_faster(shape, tried)
            except (AttributeError, NotImplementedError, RuntimeError):  # no such operator here
                better = exact[d_in] = False
        yield better


def _is_suited(weight: Tensor) -> bool:
    # Under autocast the model's own products are in half precision, which the others are not.
    plain = weight.dtype == torch.float32 == product_dtype(weight)
    return plain and weight.device.type == "cpu" and weight.is_contiguous()


def _by_onednn(x: Tensor, weight: Tensor) -> Tensor:
    return product(x, weight, fast=True)


def _by_packing(x: Tensor, weight: Tensor) -> Tensor:
    return packed_product(x, packed(weight, len(x)), weight)


def _factors(
    rows: int, d_in: int, d_out: int
) -> tuple[Float[Tensor, "row d_in"], Float[Tensor, "d_out d_in"]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, d_in, generator=generator)
    return x, torch.randn(d_out, d_in, generator=generator)


def _is_exact(multiply: Callable[[Tensor, Tensor], Tensor], d_in: int) -> bool:
    """Whether another product rounds as the plain one does.

    This is tested in every call, because the precision of products is a setting that may change.
    """
    x, weight = _factors(16, d_in, 256)
    exact = x.double() @ weight.double().T
    plain, other = (float((by(x, weight) - exact).norm()) for by in (product, multiply))
    return other < 4 * plain


@functools.cache
def _is_faster(shape: tuple[int, int], rows: int) -> bool:
    """Whether the faster product takes at most 0.9 of the plain one's processor time.

    The processor decides it, the shape of the weight and the number of rows. For a few rows, the
    weight is as `in_order` gives it. Each is tested once in a process, so that equal calls have
    equal results; all shapes of a small model take about 0.3 seconds.
    """
    d_out, d_in = shape
    x, weight = _factors(rows, d_in, d_out)
    read = in_order(weight, rows)
    plain, fast = _least_seconds(lambda: product(x, weight), lambda: product(x, read, fast=True))
    return fast < 0.9 * plain


@functools.cache
def _is_faster_packed(shape: tuple[int, int], rows: int) -> bool:
    """Whether the product by a packed weight takes at most 0.9 of the faster other one's time.

    It is tested as in `_is_faster`.
    """
    d_out, d_in = shape
    x, weight = _factors(rows, d_in, d_out)
    read, copy = in_order(weight, rows), packed(weight, rows)
    by_packing, *others = _least_seconds(
        lambda: packed_product(x, copy, weight),
        lambda: product(x, weight),
        lambda: product(x, read, fast=True),
    )
    return by_packing < 0.9 * min(others)


@functools.cache
def _order_pays(d_in: int) -> bool:
    """Whether weights in order save a quarter of the time of two rows.

    Decoding one text multiplies two rows from the patch up. For a smaller gain it is not worth a
    copy of all weights.
    """
    x, weight = _factors(2, d_in, _COLUMNS_FOR_FEW)
    copy = ordered(weight, 2)
    as_it_is, in_its_order = _least_seconds(
        lambda: product(x, weight, fast=True), lambda: product(x, copy, fast=True)
    )
    return in_its_order < 0.75 * as_it_is


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
