"""The product of many rows with one large float32 matrix, by whichever is faster here.

On a CPU torch multiplies by MKL, which on AMD's processors does about two thirds of what oneDNN
does with a matrix that was first copied into the order in which it is read. The copy costs as much
as the product of some 150 rows, so it is made for one call of the library and dropped with it: no
copy can be out of date when the weights of a model are edited.

The operators are private ones of torch, those that `torch.compile` emits on a CPU. They are used
only where they run, and are found as exact as the plain product and clearly faster.
"""

import functools
import time
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

# Below so many rows the copy costs about as much as it saves.
_MANY_ROWS = 512
# Rows in a product, in the copy's layout and in the trials.
_ROWS = 128


@torch.no_grad()
def packed_copy(weight: Float[Tensor, "d_out d_in"], rows: int) -> Tensor | None:
    """A copy of a weight for the faster product, None where the plain one is to be taken.

    **Arguments:**

    - `weight`: copied if it is a contiguous float32 matrix on a CPU.
    - `rows`: about how many rows will be multiplied with it in all.
    """
    suited = weight.device.type == "cpu" and weight.dtype == torch.float32
    if rows < _MANY_ROWS or not suited or not weight.is_contiguous():
        return None
    d_in = weight.shape[1]
    try:
        return _pack(weight) if _is_exact(d_in) and _is_faster(d_in) else None
    except (AttributeError, NotImplementedError, RuntimeError):  # a torch without the operators
        return None


def product(
    x: Float[Tensor, "row d_in"],
    weight: Float[Tensor, "d_out d_in"],
    packed: Tensor | None = None,
    out: Float[Tensor, "row d_out"] | None = None,
) -> Float[Tensor, "row d_out"]:
    """`x @ weight.T`.

    **Arguments:**

    - `x`, `weight`: the factors.
    - `packed`: what `packed_copy` made of the weight. It has no gradient: where one is wanted, the
        product is the plain one.
    - `out`: receives the product, if there is no gradient.
    """
    if packed is None or (x.requires_grad and torch.is_grad_enabled()):
        return torch.mm(x, weight.T, out=out)
    fast = torch.ops.mkldnn._linear_pointwise(x.contiguous(), packed, None, "none", [], "")
    return fast if out is None else out.copy_(fast)


def _pack(weight: Float[Tensor, "d_out d_in"]) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)


def _factors(
    rows: int, d_in: int, d_out: int
) -> tuple[Float[Tensor, "row d_in"], Float[Tensor, "d_out d_in"]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, d_in, generator=generator)
    return x, torch.randn(d_out, d_in, generator=generator)


def _is_exact(d_in: int) -> bool:
    """Whether the faster product rounds as the plain one does.

    Asked anew for every copy, since the precision of products is a setting that may change.
    """
    x, weight = _factors(16, d_in, 256)
    exact = x.double() @ weight.double().T
    plain, fast = product(x, weight) - exact, product(x, weight, _pack(weight)) - exact
    return float(fast.norm()) < 4 * float(plain.norm())


@functools.cache
def _is_faster(d_in: int) -> bool:
    """Whether the faster product takes at most 0.9 of the plain one's time.

    Asked once in a process, in some 50 milliseconds, so that equal calls have equal results.
    """
    x, weight = _factors(_ROWS, d_in, 2048)
    packed = _pack(weight)
    trials = [lambda: product(x, weight), lambda: product(x, weight, packed)]
    # In turns, and the least of each: what else the machine does only adds to a time.
    plain, fast = map(min, zip(*(map(_seconds, trials) for _ in range(6)), strict=True))
    return fast < 0.9 * plain


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
