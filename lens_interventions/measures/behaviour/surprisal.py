"""Surprisal of tokens, and quantities averaged over bins of it."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor

from ..._summary import summary


@dataclass(frozen=True, eq=False)
class Bins:
    """Values sorted into intervals.

    Attributes:
        index: `[batch, pos]`, the number of each value's bin; -1 at nan.
        labels: the range of each bin, such as "1 to 2".
    """

    index: Int[Tensor, "batch pos"]
    labels: tuple[str, ...]

    __repr__ = summary


def bin_by(values: Real[Tensor, "batch pos"], edges: Iterable[float]) -> Bins:
    """Sort values into `len(edges) + 1` bins, divided at the edges.

    `values` are `[batch, pos]`. Bin b holds `edges[b - 1] <= value < edges[b]`. The outer bins are
    open, so every number has a bin, even infinities; nan ("there is no next token") has none.

    Raises `ValueError` unless the edges are finite and increase.
    """
    edges = [edge if isinstance(edge, int) else float(edge) for edge in edges]
    if not edges or not all(map(math.isfinite, edges)) or sorted(set(edges)) != list(edges):
        raise ValueError(f"bin edges must be finite numbers in increasing order, got {edges}")
    starts = edges
    device, values = values.device, values.cpu()
    if values.is_floating_point():
        values = values.double()  # an edge may not fit into fewer digits; MPS has no float64
    else:
        # A whole number reaches an edge if it reaches the next whole number. None reaches more.
        values, most = values.long(), 2**63 - 1
        starts = [max(-most - 1, math.ceil(edge)) for edge in edges if edge <= most]
    boundaries = torch.tensor(starts, dtype=values.dtype)
    index = torch.bucketize(values, boundaries, right=True)
    between = [f"{low:.12g} to {high:.12g}" for low, high in itertools.pairwise(edges)]
    labels = (f"below {edges[0]:.12g}", *between, f"{edges[-1]:.12g} and more")
    return Bins(torch.where(values.isnan(), -1, index).to(device), labels)


def bin_totals(
    values: Float[Tensor, "batch pos"], bins: Int[Tensor, "batch pos"], n_bins: int
) -> tuple[Float[Tensor, "batch bin"], Int[Tensor, "batch bin"]]:
    """Sum and number of the values of each sequence in each bin, on the CPU.

    Their quotient is the sequence's mean; they are returned separately because
    `intervals.mean_interval` resamples both. `values` are `[batch, pos]`, and `bins` numbers from 0
    to `n_bins - 1`, which may be any partition of positions, such as `copyable(tokens).long()`. Bin
    -1 and values of nan are left out.

    Raises `ValueError` for a bin outside -1..n_bins-1, or unless each value has its bin.
    """
    if values.ndim != 2 or values.shape != bins.shape:
        raise ValueError(
            f"expected values and bins [batch, pos], a bin for each value; got shapes "
            f"{tuple(values.shape)} and {tuple(bins.shape)}"
        )
    if bins.numel() and not -1 <= int(bins.min()) <= int(bins.max()) < n_bins:
        raise ValueError(
            f"bins must be between -1 and {n_bins - 1}, got {int(bins.min())} to {int(bins.max())}"
        )
    values, bins = values.cpu().double(), bins.cpu().long()
    used = (bins >= 0) & ~values.isnan()
    where = bins.clamp(min=0)
    totals = values.new_zeros(values.shape[0], n_bins)
    totals.scatter_add_(1, where, values.where(used, 0))
    counts = where.new_zeros(values.shape[0], n_bins)
    counts.scatter_add_(1, where, used.to(where.dtype))
    return totals, counts


def unigram_surprisal(
    counts: Real[Tensor, " d_vocab"], *, smoothing: float = 0.5
) -> Float[Tensor, " d_vocab"]:
    """Surprisal of each token in nats, by its frequency alone.

    With additive smoothing it is
    `-log((count + smoothing) / (sum of counts + smoothing * d_vocab))`, so a token that was never
    counted has the largest surprisal, which is finite. The default of a half is Krichevsky and
    Trofimov's (1981). The order of the tokens, and hence ranks, quantiles and rank correlations,
    are the same for every `smoothing`.

    Raises `ValueError` unless `smoothing` is positive and the counts are not negative.
    """
    if smoothing <= 0 or not math.isfinite(smoothing) or bool((counts < 0).any()):
        raise ValueError(
            "unigram surprisal needs counts >= 0 and smoothing > 0 (an unseen token would be "
            f"infinitely surprising), got smoothing={smoothing} and a smallest count of "
            f"{counts.min().item()}"
        )
    smoothed = counts.double() + smoothing
    return smoothed.sum().log() - smoothed.log()
