"""Random numbers that depend on where they are used, and not on earlier draws.

A draw depends on a seed and on counters (text, position, coordinate), so it is the same in every
batch, chunk and order of computation, and on every device: draws are made on the CPU.
"""

import math
import operator
from typing import SupportsIndex

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Odd constants of SplitMix64 (Steele, Lea & Flood 2014), as signed 64-bit integers.
_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9 - 2**64
_MULTIPLIER_2 = 0x94D049BB133111EB - 2**64

SEEDS_APART = 1_000_003
"""A run's seed is multiplied by this where its samples count on from it, so runs share no draws."""


def random_bits(seed: SupportsIndex, *counters: Int[Tensor, "*#shape"]) -> Int[Tensor, "*shape"]:
    """63 random bits, as non-negative int64, for every combination of counters (they broadcast).

    SplitMix64's mixing function, applied once for each counter.
    """
    state = _mix(torch.tensor(operator.index(seed) % 2**63) * _GAMMA + _GAMMA)
    for counter in counters:
        # Without the offset, a counter of zero would leave the state unchanged.
        state = _mix(state ^ ((counter.cpu().long() + 1) * _GAMMA))
    return _shift_right(state, 1).to(counters[0].device)


def random_integers(
    high: int | Int[Tensor, "*#shape"], seed: SupportsIndex, *counters: Int[Tensor, "*#shape"]
) -> Int[Tensor, "*shape"]:
    """Uniform integers in `[0, high)`; the bias of the remainder is below high / 2**63."""
    return random_bits(seed, *counters) % high


def random_uniform(
    seed: SupportsIndex, *counters: Int[Tensor, "*#shape"]
) -> Float[Tensor, "*shape"]:
    """Uniform numbers in (0, 1), in float64."""
    return _uniform(random_bits(seed, *counters))


def random_normal(
    size: int, seed: SupportsIndex, *counters: Int[Tensor, "*#shape"]
) -> Float[Tensor, "*shape {size}"]:
    """Standard normal vectors of `size` coordinates, by Box and Muller's transform, on the CPU."""
    counters = tuple(counter[..., None].cpu() for counter in counters)
    coordinate = torch.arange(size)
    radius = _uniform(random_bits(seed, *counters, 2 * coordinate)).log().mul(-2).sqrt()
    angle = _uniform(random_bits(seed, *counters, 2 * coordinate + 1)).mul(2 * math.pi)
    return radius * angle.cos()


def _uniform(bits: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    # A double holds 53 bits; adding half a step avoids the logarithm of zero.
    return ((bits >> 10).double() + 0.5) * 2.0**-53


def _mix(state: Tensor) -> Tensor:
    state = (state ^ _shift_right(state, 30)) * _MULTIPLIER_1
    state = (state ^ _shift_right(state, 27)) * _MULTIPLIER_2
    return state ^ _shift_right(state, 31)


def _shift_right(bits: Tensor, by: int) -> Tensor:
    """Logical shift; torch's own shift extends the sign."""
    return (bits >> by) & ((1 << (64 - by)) - 1)
