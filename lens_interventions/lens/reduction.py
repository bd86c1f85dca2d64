"""From residuals to statistics in bounded memory: no `[point, pos, d_vocab]` tensor ever exists.

Positions are processed in chunks. For each chunk, the reference distributions (the last point, the
input, a chosen point) are made first and kept in reduced form. Then every other point's logits are
made in one reused buffer, reduced to a few numbers per row, and overwritten by the next point's.
The product that makes logits wants many rows; the passes over them want few, which stay in a cache.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..model.precision import is_half
from ..model.product import product_dtype, weighted_rows
from ..model.readout import Readout
from .distributions import expectation, js_divergence, normalizer_and_entropy, ranks, top_k
from .statistics import Divergence, related

# On a CPU, a buffer beyond glibc's largest mmap threshold (32 MiB) returns to the system and faults
# its pages in again on every use; a chunk's buffer of logits stays below that.
_CPU_BUFFER_BYTES = 24 * 2**20
# Logits that a CPU reduces at a time: with what is computed from them, they stay in a cache of a
# few MiB. The passes then take about as long as one fused pass by `torch.compile`.
_CPU_TILE_BYTES = 3 * 2**20
# On a GPU a chunk may take this share of the free memory, in about six buffers.
_GPU_SHARE = 0.25
_MAX_ROWS = 8192


def default_chunk_size(unembedding: Float[Tensor, "d_vocab d_model"]) -> int:
    """Rows of logits to hold at a time: what fits a CPU's buffer or a GPU's free memory."""
    row_bytes = len(unembedding) * max(4, unembedding.dtype.itemsize)
    if unembedding.is_cuda:
        budget = int(torch.cuda.mem_get_info(unembedding.device)[0] * _GPU_SHARE) // 6
    else:
        budget = _CPU_BUFFER_BYTES
    return max(1, min(_MAX_ROWS, budget // row_bytes))


@dataclass(frozen=True)
class _Distribution:
    """One point's next-token distributions in one chunk: logits, and what a first pass gives.

    `probabilities` are in a buffer that the next distribution overwrites; so are `logits`, unless
    they have one of their own.
    """

    normalized: Float[Tensor, "row d_model"]
    logits: Float[Tensor, "row d_vocab"]
    probabilities: Float[Tensor, "row d_vocab"]
    top_ids: Int[Tensor, "row k"]
    top_logits: Float[Tensor, "row k"]
    log_normalizer: Float[Tensor, " row"]
    entropy: Float[Tensor, " row"]


@dataclass(frozen=True)
class _Reference:
    """A distribution that all points are compared with.

    KL(reference ‖ point) = log_normalizer(z) - E[z] - entropy(reference), z the point's logits and
    E the reference's expectation, is linear in z. With `z = scale * (W h + b)`, `E[z]` is a dot
    product of the normalized residual h with the reference's mean unembedding row: no further pass
    over the vocabulary, and a smaller rounding error where the divergence is large. Where the
    output transform is not linear, the probabilities themselves are kept.
    """

    distribution: _Distribution
    mean_row: Float[Tensor, "row d_model"] | None
    mean_bias: Float[Tensor, " row"] | None
    probabilities: Float[Tensor, "row d_vocab"] | None

    def of_rows(self, rows: slice) -> "_Reference":
        """The same for some of the rows."""
        whole = self.distribution
        distribution = _Distribution(*(getattr(whole, f.name)[rows] for f in fields(whole)))
        means = (self.mean_row, self.mean_bias, self.probabilities)
        return _Reference(distribution, *(None if x is None else x[rows] for x in means))


# Some of a chunk's rows, with the references and the targets of these rows.
_Tile = tuple[slice, Mapping[str, _Reference], Mapping[str, Tensor]]


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
        divergences: Collection[str],
        references: Mapping[str, str],
    ) -> None:
        self.readout, self.rows, self.k = readout, rows, k
        self.divergences, self.references = divergences, references
        precision = product_dtype(readout.weight)
        half = is_half(precision)
        # Logits in half precision are rounded, so they are not linear in the residual.
        self._linear = readout.scale is not None and not half
        # Logits are the model's own, in its precision; their statistics are computed in float32.
        self._dtype = torch.float32 if half else readout.weight.dtype
        self._product = self._buffer(precision) if half else None
        self._point_logits = self._buffer(self._dtype)
        self._scratch = self._buffer(self._dtype)
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
        # Whether a reference's logits are needed once the next one is read: for divergences that
        # are no dot products, or to rank what a later one likes best.
        kept = not (self._linear and set(self.divergences) <= {"kl"} and later <= {labels[0]})
        references: dict[str, _Reference] = {}
        alone: dict[str, dict[str, Tensor]] = {}
        for label in labels:
            normalized = self.readout.normalize(residuals[label])
            point = self._read(normalized, self._logits(normalized, self._room(label, kept)))
            references[label] = self._reference(point)
            names = [name for name, of in self.references.items() if of == label]
            targets = {**dict.fromkeys(names, point.top_ids[:, :1]), **targets}
            if not kept:
                alone[label] = self._alone(point, targets)
        by_name = {name: references[label] for name, label in self.references.items()}
        tiles = list(self._tiles(by_name, targets))
        others = self._in_turn([r for label, r in residuals.items() if label not in references])
        for label in residuals:
            if label in alone:
                point = references[label].distribution
                yield label, self._divergences(point, by_name) | alone[label]
                continue
            if label in references:  # its logits were kept, its probabilities overwritten
                point = references[label].distribution
                normalized, logits = point.normalized, point.logits
            else:
                normalized, logits = next(others)
            yield label, self._reduced(normalized, logits, tiles)

    def _reduced(
        self,
        normalized: Float[Tensor, "row d_model"],
        logits: Float[Tensor, "row d_vocab"],
        tiles: Sequence[_Tile],
    ) -> dict[str, Tensor]:
        """All statistics of a point, a tile at a time."""
        parts = []
        for rows, references, targets in tiles:
            point = self._read(normalized[rows], logits[rows])
            parts.append(self._divergences(point, references) | self._alone(point, targets))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _tiles(
        self, references: Mapping[str, _Reference], targets: Mapping[str, Int[Tensor, "row target"]]
    ) -> Iterator[_Tile]:
        """A chunk's rows, a few at a time, with their references and targets."""
        n_rows = len(next(iter(targets.values())))
        size = n_rows
        if self._scratch.device.type == "cpu":
            size = max(1, _CPU_TILE_BYTES // (self._scratch[0].numel() * self._scratch.itemsize))
        for start in range(0, n_rows, size):
            rows = slice(start, start + size)
            yield (
                rows,
                {name: each.of_rows(rows) for name, each in references.items()},
                {name: ids[rows] for name, ids in targets.items()},
            )

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

    def _buffer(self, dtype: torch.dtype) -> Float[Tensor, "max_row d_vocab"]:
        weight = self.readout.weight
        return torch.empty(self.rows, len(weight), dtype=dtype, device=weight.device)

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

    def _read(
        self, normalized: Float[Tensor, "row d_model"], logits: Float[Tensor, "row d_vocab"]
    ) -> _Distribution:
        top_ids, top_logits = top_k(logits, self.k)
        probabilities = self._scratch[: len(logits)]
        log_normalizer, entropy = normalizer_and_entropy(logits, top_ids[:, 0], probabilities)
        return _Distribution(
            normalized, logits, probabilities, top_ids, top_logits, log_normalizer, entropy
        )

    def _reference(self, distribution: _Distribution) -> _Reference:
        bias = self.readout.bias
        probabilities = distribution.probabilities
        if not self._linear:
            return _Reference(distribution, None, None, probabilities.clone())
        mean_row = weighted_rows(probabilities, self.readout.weight, fast=self.readout.fast)
        mean_bias = None
        if bias is not None:
            # Tokens that a bias of minus infinity excludes have no part in any distribution.
            mean_bias = probabilities @ bias.masked_fill(bias == -torch.inf, 0)
        return _Reference(distribution, mean_row, mean_bias, None)

    def _alone(
        self, point: _Distribution, targets: Mapping[str, Int[Tensor, "row target"]]
    ) -> dict[str, Tensor]:
        """All but the divergences. The ranks overwrite the probabilities."""
        values = {
            "top_ids": point.top_ids,
            "top_logits": point.top_logits,
            "log_normalizer": point.log_normalizer,
            "entropy": point.entropy,
        }
        ids = torch.cat(list(targets.values()), dim=-1)
        widths = [target.shape[-1] for target in targets.values()]
        target_ranks = ranks(point.logits, ids, point.probabilities).split(widths, dim=-1)
        log_probs = point.logits.gather(-1, ids) - point.log_normalizer[:, None]
        for name, rank, log_prob in zip(
            targets, target_ranks, log_probs.split(widths, dim=-1), strict=True
        ):
            values[related("rank", name).name] = rank
            values[related("log_prob", name).name] = log_prob
        return values

    def _divergences(
        self, point: _Distribution, references: Mapping[str, _Reference]
    ) -> dict[str, Tensor]:
        """Divergences from each reference. They need the point's probabilities."""
        values = {}
        for name, reference in references.items():
            for kind, value in self._divergences_from(reference, point).items():
                values[related(kind, name).name] = value
        return values

    def _divergences_from(
        self, reference: _Reference, point: _Distribution
    ) -> dict[Divergence, Tensor]:
        other = reference.distribution
        values: dict[Divergence, Tensor] = {}
        if "kl" in self.divergences:
            kl = point.log_normalizer - self._mean_logit(reference, point) - other.entropy
            values["kl"] = kl.clamp(min=0)
        if "kl_reverse" in self.divergences:
            mean = expectation(point.probabilities, other.logits)
            kl = other.log_normalizer - mean - point.entropy
            values["kl_reverse"] = kl.clamp(min=0)
        if "js" in self.divergences:
            values["js"] = js_divergence(other.logits, point.logits)
        return values

    def _mean_logit(self, reference: _Reference, point: _Distribution) -> Float[Tensor, " row"]:
        """The reference's expectation of the point's logits."""
        if reference.probabilities is not None:
            return expectation(reference.probabilities, point.logits)
        assert reference.mean_row is not None
        assert self.readout.scale is not None
        mean = (point.normalized.to(reference.mean_row.dtype) * reference.mean_row).sum(-1)
        if reference.mean_bias is not None:
            mean = mean + reference.mean_bias
        return self.readout.scale * mean
