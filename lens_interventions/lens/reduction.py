"""From residuals to statistics in bounded memory: no `[point, pos, d_vocab]` tensor ever exists.

Positions are processed in chunks. For each chunk, the reference distributions (the last point, the
input, a chosen point) are made first and kept in reduced form. Then every other point's logits are
made in one reused buffer, reduced to a few numbers per row, and overwritten by the next point's.
The product that makes logits wants many rows; the passes over them want few, which stay in a cache.
"""

from collections.abc import Collection, Iterator, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..model.precision import is_half, rounds_factors
from ..model.product import product_dtype, weighted_rows
from ..model.readout import Readout
from .distributions import normalizer_and_entropy, normalizer_entropy_and_ranks, ranks, top_k
from .reference import Distribution, Reference
from .statistics import Divergence, related

# On a CPU, a buffer beyond glibc's largest mmap threshold (32 MiB) returns to the system and faults
# its pages in again on every use; a chunk's buffer of logits stays below that.
_CPU_BUFFER_BYTES = 24 * 2**20
# From a vocabulary of 98,000 in float32 on, it is larger: each chunk reads the whole unembedding,
# which would cost more with fewer rows.
_FEWEST_CPU_ROWS = 64
# Logits that each thread on a CPU reduces at a time: with what is computed from them, they stay in
# the second cache of its core.
_THREAD_TILE_BYTES = 3 * 2**17
# On a GPU a chunk may take this share of the free memory, in about six buffers.
_GPU_SHARE = 0.25
_MAX_ROWS = 8192


def default_chunk_size(unembedding: Float[Tensor, "d_vocab d_model"]) -> int:
    """Rows of logits to hold at a time: what fits a CPU's buffer or a GPU's free memory."""
    row_bytes = len(unembedding) * max(4, unembedding.dtype.itemsize)
    if unembedding.is_cuda:
        fewest, budget = 1, int(torch.cuda.mem_get_info(unembedding.device)[0] * _GPU_SHARE) // 6
    else:
        fewest, budget = _FEWEST_CPU_ROWS, _CPU_BUFFER_BYTES
    return max(fewest, min(_MAX_ROWS, budget // row_bytes))


class ChunkReducer:
    """Reduces the residuals of chunks of positions to statistics, in buffers that chunks share.

    **Arguments:**

    - `readout`: from residuals to logits.
    - `rows`: the largest chunk.
    - `k`: how many of the likeliest tokens to keep.
    - `divergences`: of `"kl"` (reference ‖ point), `"kl_reverse"` (point ‖ reference), `"js"`.
    - `references`: the points to compare with, by the target of their statistics.
    """

    def __init__(
        self,
        readout: Readout,
        rows: int,
        *,
        k: int,
        divergences: Collection[Divergence],
        references: Mapping[str, str],
    ) -> None:
        self.readout, self.rows, self.k = readout, rows, k
        self.references = references
        precision = product_dtype(readout.weight)
        half = is_half(precision)
        # Logits in half precision are rounded, so they are not linear in the residual. Nor are they
        # if products round their factors.
        self._linear = readout.scale is not None and not half and not rounds_factors()
        # The divergences that are dot products, and those that take a pass over the vocabulary.
        self._dots = [kind for kind in divergences if kind == "kl" and self._linear]
        self._passes = [kind for kind in divergences if kind not in self._dots]
        # Logits are the model's own, in its precision; their statistics are computed in float32.
        self._dtype = torch.float32 if half else readout.weight.dtype
        self._product = self._buffer(precision) if half else None
        self._point_logits = self._buffer(self._dtype)
        self._scratch = self._buffer(self._dtype, max(2, rows))
        self._kept: dict[str, Tensor] = {}

    def reduce(
        self,
        residuals: Mapping[str, Float[Tensor, "row d_model"]],
        targets: Mapping[str, Int[Tensor, "row target"]],
    ) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Yield (label, statistics by name) for every point, references among them.

        `targets` are the tokens to rank, by the target of their statistics. A reference's top
        guess is ranked too, unless a token is given for that target.
        """
        labels = list(dict.fromkeys(self.references.values()))
        later = {label for name, label in self.references.items() if name not in targets}
        # Whether a reference's logits are needed once the next one is read: for passes over the
        # vocabulary, or to rank what a later one likes best.
        kept = not (self._linear and not self._passes and later <= {labels[0]})
        references: dict[str, Reference] = {}
        alone: dict[str, dict[str, Tensor]] = {}
        for label in labels:
            normalized = self.readout.normalize(residuals[label])
            logits = self._logits(normalized, self._room(label, kept))
            references[label] = self._reference(normalized, logits)
            point = references[label].distribution
            names = [name for name, of in self.references.items() if of == label]
            targets = {**dict.fromkeys(names, point.top_ids[:, :1]), **targets}
            if not kept:
                ids = torch.cat(list(targets.values()), dim=-1)
                scratch = self._scratch[: len(logits)]
                alone[label] = _alone(point, targets, ranks(logits, ids, scratch))
        by_name = {name: references[label] for name, label in self.references.items()}
        others = self._in_turn([r for label, r in residuals.items() if label not in references])
        for label in residuals:
            if label in alone:
                point = references[label].distribution
                of_rows = _divergences(self._dots, by_name, point)
                yield label, of_rows | alone[label]
                continue
            if label in references:  # its logits were kept
                point = references[label].distribution
                normalized, logits = point.normalized, point.logits
            else:
                normalized, logits = next(others)
            yield label, self._reduced(normalized, logits, by_name, targets)

    def _reduced(
        self,
        normalized: Float[Tensor, "row d_model"],
        logits: Float[Tensor, "row d_vocab"],
        references: Mapping[str, Reference],
        targets: Mapping[str, Int[Tensor, "row target"]],
    ) -> dict[str, Tensor]:
        """All statistics of a point. The passes over the vocabulary take a few rows at a time."""
        few = self._few_rows()
        top_ids, top_logits = top_k(logits, self.k)
        ids = torch.cat(list(targets.values()), dim=-1)
        log_normalizer, entropy, counts = normalizer_entropy_and_ranks(
            logits, top_ids[:, 0], ids, self._scratch[: 2 * few]
        )
        point = Distribution(normalized, logits, top_ids, top_logits, log_normalizer, entropy)
        found = _divergences(self._dots, references, point)
        if self._passes:
            parts = []
            for start in range(0, len(logits), few):
                rows = slice(start, start + few)
                there = {name: each.of_rows(rows) for name, each in references.items()}
                parts.append(_divergences(self._passes, there, point.of_rows(rows)))
            found |= {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return found | _alone(point, targets, counts)

    def _few_rows(self) -> int:
        """How many rows of logits a pass takes at a time: at most half of the scratch buffer's."""
        most = len(self._scratch) // 2
        if self._scratch.device.type != "cpu":
            return most
        row_bytes = self._scratch.shape[1] * self._scratch.itemsize
        rows = max(1, _THREAD_TILE_BYTES // row_bytes) * torch.get_num_threads()
        return min(most, rows)

    def _in_turn(
        self, residuals: list[Float[Tensor, "row d_model"]]
    ) -> Iterator[tuple[Float[Tensor, "row d_model"], Float[Tensor, "row d_vocab"]]]:
        """Normalized residuals and logits of points in turn.

        As many points share a product as there is room for: with few rows, reading the weight takes
        most of the time.
        """
        together = self.rows // max(len(residuals[0]), 1) if residuals else 1
        for start in range(0, len(residuals), together):
            normalized = self.readout.normalize(torch.stack(residuals[start : start + together]))
            logits = self._logits(normalized.flatten(0, 1), self._point_logits)
            yield from zip(normalized, logits.view(*normalized.shape[:2], -1), strict=True)

    def _buffer(
        self, dtype: torch.dtype, rows: int | None = None
    ) -> Float[Tensor, "max_row d_vocab"]:
        weight = self.readout.weight
        return torch.empty(rows or self.rows, len(weight), dtype=dtype, device=weight.device)

    def _room(self, label: str, kept: bool) -> Float[Tensor, "max_row d_vocab"]:
        """The buffer for a reference's logits."""
        if not kept:
            return self._point_logits
        if label not in self._kept:
            self._kept[label] = self._buffer(self._dtype)
        return self._kept[label]

    def _logits(
        self, normalized: Float[Tensor, "row d_model"], out: Float[Tensor, "max_row d_vocab"]
    ) -> Float[Tensor, "row d_vocab"]:
        rows = len(normalized)
        if self._product is None:
            return self.readout.logits(normalized, out=out[:rows])
        return out[:rows].copy_(self.readout.logits(normalized, out=self._product[:rows]))

    def _reference(
        self, normalized: Float[Tensor, "row d_model"], logits: Float[Tensor, "row d_vocab"]
    ) -> Reference:
        top_ids, top_logits = top_k(logits, self.k)
        probabilities = self._scratch[: len(logits)]
        sums = normalizer_and_entropy(logits, top_ids[:, 0], probabilities)
        distribution = Distribution(normalized, logits, top_ids, top_logits, *sums)
        bias, scale = self.readout.bias, self.readout.scale
        if not self._linear:
            return Reference(distribution, None, None, probabilities.clone())
        assert scale is not None
        mean = weighted_rows(probabilities, self.readout.weight, fast=self.readout.fast)
        mean_bias = None
        if bias is not None:
            # Tokens that a bias of minus infinity excludes have no part in any distribution.
            mean_bias = scale * (probabilities @ bias.masked_fill(bias == -torch.inf, 0))
        return Reference(distribution, scale * mean, mean_bias, None)


def _divergences(
    kinds: Collection[Divergence], references: Mapping[str, Reference], point: Distribution
) -> dict[str, Tensor]:
    """Divergences of these kinds from each reference, by the names of their statistics."""
    return {
        related(kind, name).name: getattr(reference, kind)(point)
        for kind in kinds
        for name, reference in references.items()
    }


def _alone(
    point: Distribution,
    targets: Mapping[str, Int[Tensor, "row target"]],
    counts: Int[Tensor, "row all_targets"],
) -> dict[str, Tensor]:
    """All statistics but the divergences; `counts` are the ranks of all targets side by side."""
    values = {
        "top_ids": point.top_ids,
        "top_logits": point.top_logits,
        "log_normalizer": point.log_normalizer,
        "entropy": point.entropy,
    }
    widths = [ids.shape[-1] for ids in targets.values()]
    for (name, ids), rank in zip(targets.items(), counts.split(widths, dim=-1), strict=True):
        values[related("rank", name).name] = rank
        log_probs = point.logits.gather(-1, ids) - point.log_normalizer[:, None]
        values[related("log_prob", name).name] = log_probs
    return values
