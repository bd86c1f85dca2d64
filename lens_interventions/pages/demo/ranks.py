"""Ranks of tokens: their means, and how they are written."""

import numpy as np
from jaxtyping import Float


def typical_rank(mean_log10: float) -> float:
    """The geometric mean of 1 + rank, less one."""
    return float(10**mean_log10) - 1


def log10_ranks(ranks: Float[np.ndarray, "*cell"]) -> Float[np.ndarray, "*cell"]:
    """The decimal logarithm of 1 + rank; NaN for -1, which is no rank."""
    return np.log10(1 + np.where(ranks < 0, np.nan, ranks))


def count(rank: float) -> str:
    """A typical rank for reading: whole from 10 upwards."""
    return f"{rank:,.1f}" if rank < 10 else f"{rank:,.0f}"
