"""Comparing arms: paired differences per cluster, their intervals and p-values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Real

from ...measures.crossed import crossed_mean_test
from ...measures.intervals import Interval, holm, mean_interval, mean_intervals, sign_flip_p_values
from .conditions import Arm
from .rows_of_sums import sums_table
from .totals import Totals


@dataclass(frozen=True)
class Resampling:
    """How intervals and p-values are made.

    Attributes:
        level: of the intervals.
        n_resamples: bootstrap resamples, and sign flips.
        seed: each call starts from it, so the same rows give the same numbers.

    Raises `ValueError` for a level that is not between 0 and 1, fewer than two resamples, or a
    negative seed.
    """

    level: float = 0.95
    n_resamples: int = 9999
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.level < 1 or self.n_resamples < 2 or self.seed < 0:
            raise ValueError(
                "level must be between 0 and 1, n_resamples at least 2 and seed at least 0; got "
                f"{self.level}, {self.n_resamples} and {self.seed}"
            )

    def rng(self) -> np.random.Generator:
        """A new generator."""
        return np.random.default_rng(self.seed)

    def interval(
        self, totals: Real[np.ndarray, " seq"], counts: Real[np.ndarray, " seq"] | None = None
    ) -> Interval:
        """Bootstrap interval of `sum(totals) / sum(counts)`; without counts each cluster is one."""
        return mean_interval(
            totals, counts, rng=self.rng(), level=self.level, n_resamples=self.n_resamples
        )

    def intervals(
        self, totals: Real[np.ndarray, "cell seq"], counts: Real[np.ndarray, " seq"]
    ) -> list[Interval]:
        """Bootstrap interval of `sum(totals) / sum(counts)` for each cell."""
        return mean_intervals(
            totals,
            np.broadcast_to(counts, totals.shape),
            rng=self.rng(),
            level=self.level,
            n_resamples=self.n_resamples,
        )


@dataclass(frozen=True)
class Contrast:
    """One arm against another, paired over clusters.

    Attributes:
        interval: of the mean difference, arm minus reference.
        p_value: of the sign-flip test over clusters. Where they are crossed with something, of
            `crossed_mean_test`: flipping the signs of words would take the frames for granted. 1
            where there are fewer than two clusters.
    """

    interval: Interval
    p_value: float

    def columns(self) -> dict[str, Any]:
        """As columns of a row."""
        return {**asdict(self.interval), "p_value": self.p_value}


def with_holm(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Add `p_holm`, Holm's correction over these rows, to rows of contrasts."""
    adjusted = holm(np.array([row["p_value"] for row in rows], dtype=np.float64))
    return [{**row, "p_holm": float(p)} for row, p in zip(rows, adjusted, strict=True)]


def row_interval(row: Mapping[Any, Any]) -> Interval:
    """The interval in a row that `Contrast.columns` made."""
    return Interval(**{field.name: row[field.name] for field in fields(Interval)})


def mean_contrast(
    totals: Float[np.ndarray, " cluster"],
    resampling: Resampling,
    counts: Float[np.ndarray, " cluster"] | None = None,
) -> Contrast:
    """`sum(totals) / sum(counts)` against 0; without counts each cluster is one."""
    counts = np.ones(len(totals)) if counts is None else counts
    (found,) = _contrasts(counts, [totals], resampling)
    return found


def contrast(totals: Totals, arm: Arm, reference: Arm, resampling: Resampling) -> Contrast:
    """The mean difference of `arm` and `reference`, paired over clusters."""
    (found,) = contrasts(totals, [(arm, reference)], resampling)
    return found


def contrasts(
    totals: Totals, pairs: Sequence[tuple[Arm, Arm]], resampling: Resampling
) -> list[Contrast]:
    """The `contrast` of each pair, an arm and its reference: the same resamples serve all pairs."""
    differences = [totals.difference(arm, reference) for arm, reference in pairs]
    return _contrasts(totals.cell_counts, differences, resampling)


def contrast_rows(
    totals: Totals, pairs: Sequence[tuple[Arm, Arm]], resampling: Resampling
) -> list[dict[str, Any]]:
    """The `contrasts` of the pairs as rows with `source` and `minus`."""
    return [
        {"source": arm.source, "minus": reference.source, **found.columns()}
        for (arm, reference), found in zip(pairs, contrasts(totals, pairs, resampling), strict=True)
    ]


def seed_contrast(rows: pd.DataFrame, minus: pd.DataFrame, resampling: Resampling) -> Contrast:
    """The mean of `rows` minus that of `minus`, a token, over trainings with several seeds.

    Both have columns `seed`, `cluster`, `total` and `count`, for the same seeds and texts. What
    `minus` has with a single seed is the same for all. Texts and seeds are resampled, each on its
    own; with a single seed the interval knows of texts alone.

    Raises `ValueError` if one of them is empty, or if they differ in seeds, texts or counts.
    """
    if rows.empty or minus.empty:
        raise ValueError("there are no rows to compare")
    one, other = (sums_table(each, ["cluster"], "seed") for each in (rows, minus))
    seeds = one["total"].columns
    if other.shape[1] == 2:
        values = np.repeat(other.to_numpy(), len(seeds), axis=1)
        other = pd.DataFrame(values, other.index, one.columns)
    alike = one.index.equals(other.index) and one.columns.equals(other.columns)
    if not alike or (one["count"] != other["count"]).to_numpy().any():
        raise ValueError("the two were not measured with the same seeds on the same texts")
    counts = one["count"].to_numpy(dtype=np.float64)
    difference = (one["total"] - other["total"]).to_numpy(dtype=np.float64)
    present = counts.sum(-1) > 0
    (found,) = _contrasts(counts[present], [difference[present]], resampling)
    return found


def _contrasts(
    cell_counts: Float[np.ndarray, "cluster ..."],
    differences: Sequence[Float[np.ndarray, "cluster ..."]],
    resampling: Resampling,
) -> list[Contrast]:
    """A contrast of each of `differences`, with the same resamples for all."""
    # One value is no sample of what is crossed with the clusters.
    kept = (slice(None), *(0 if size == 1 else slice(None) for size in cell_counts.shape[1:]))
    counts, cells = cell_counts[kept], [each[kept] for each in differences]
    if counts.ndim > 1:
        return [crossed_contrast(each, counts, resampling) for each in cells]
    sums = np.stack(cells)
    return [
        Contrast(interval, float(p))
        for interval, p in zip(
            resampling.intervals(sums, counts), _p_values(sums, counts, resampling), strict=True
        )
    ]


def crossed_contrast(
    difference: Float[np.ndarray, "cluster ..."],
    counts: Float[np.ndarray, "cluster ..."],
    resampling: Resampling,
    *,
    freedoms: Sequence[float] | None = None,
) -> Contrast:
    """The contrast whose sums of differences are given, over clusters and what crosses them.

    `freedoms` are those of `crossed_mean_test`.
    """
    interval, p_value = crossed_mean_test(
        difference,
        counts,
        rng=resampling.rng(),
        level=resampling.level,
        n_resamples=resampling.n_resamples,
        freedoms=freedoms,
    )
    return Contrast(interval, p_value)


def _p_values(
    differences: Float[np.ndarray, "cell cluster"],
    counts: Float[np.ndarray, " cluster"],
    resampling: Resampling,
) -> Float[np.ndarray, " cell"]:
    present = counts > 0
    if present.sum() < 2:
        return np.ones(len(differences))
    return sign_flip_p_values(
        differences[:, present], rng=resampling.rng(), n_resamples=resampling.n_resamples
    )
