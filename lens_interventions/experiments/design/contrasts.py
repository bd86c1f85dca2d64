"""Comparing the arms of a run: paired differences per cluster, their intervals and p-values.

Rows are sums: `total` over `count` tokens or items, for one arm, sequence, measure and category.
`cluster` is what an interval resamples, a sequence, document or word; rows of one cluster are added
up first. Where `crossed` says more, such as the frame around a word, both are resampled: another
study would have chosen other words and other frames. A category is a set of tags in one string,
"far rare single".
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Real

from ...measures.crossed import crossed_mean_test
from ...measures.intervals import Interval, holm, mean_interval, mean_intervals, sign_flip_p_values
from .conditions import ARM_COLUMNS, NO_PATCH, Arm, Cell, control_arms

ROW_COLUMNS = (
    "half",
    "sequence",
    "cluster",
    "crossed",
    *ARM_COLUMNS,
    "measure",
    "category",
    "total",
    "count",
)


@dataclass(frozen=True)
class Measure:
    """A quantity that arms are compared by, on a part of the material.

    Attributes:
        name: in the column `measure`, such as "loss".
        tags: only categories that have all of these.
        lower_is_better: True for a loss.
    """

    name: str
    tags: frozenset[str] = frozenset()
    lower_is_better: bool = True


@dataclass(frozen=True)
class Resampling:
    """How intervals and p-values are made.

    Attributes:
        level: of the intervals.
        n_resamples: bootstrap resamples, and sign flips.
        seed: each call starts from it, so the same rows give the same numbers.
    """

    level: float = 0.95
    n_resamples: int = 9999
    seed: int = 0

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
class Totals:
    """Sums of one measure per arm and cell, which is a cluster and what is crossed with it.

    Attributes:
        arms: in the order of the first axis.
        cells: `[arm, cluster, crossed]`; one column where nothing is crossed with the clusters.
        cell_counts: `[cluster, crossed]`, the same for all arms; 0 where there is no such cell.
    """

    arms: tuple[Arm, ...]
    cells: Float[np.ndarray, "arm cluster crossed"]
    cell_counts: Float[np.ndarray, "cluster crossed"]

    @property
    def counts(self) -> Float[np.ndarray, " cluster"]:
        """The counts of each cluster."""
        return self.cell_counts.sum(-1)

    def of(self, arm: Arm) -> Float[np.ndarray, " cluster"]:
        """The sums of one arm in each cluster."""
        return self.cells[self.arms.index(arm)].sum(-1)

    def mean(self, arm: Arm) -> float:
        """The mean over all tokens or items; nan if there are none."""
        count = self.counts.sum()
        return float(self.of(arm).sum() / count) if count else float("nan")

    def difference(self, arm: Arm, reference: Arm) -> Float[np.ndarray, "cluster crossed"]:
        """The sums of `arm` minus those of `reference` in each cell."""
        return self.cells[self.arms.index(arm)] - self.cells[self.arms.index(reference)]


def tagged(rows: pd.DataFrame, tags: Iterable[str]) -> pd.DataFrame:
    """Rows whose category has all tags."""
    return rows[_has_tags(rows["category"], tags)]


def totals_of(rows: pd.DataFrame, measure: Measure, half: str) -> Totals:
    """Sums of a measure per arm and cell, on one half of the material.

    Rows without a column `crossed` are those of clusters alone.

    Raises `ValueError` if the measure has no rows, or if an arm lacks clusters that another has.
    """
    wanted = (rows["measure"] == measure.name) & (rows["half"] == half)
    chosen = rows[wanted & _has_tags(rows["category"], measure.tags)]
    if chosen.empty:
        raise ValueError(f"no rows of {measure.name} {sorted(measure.tags)} on the {half} half")
    of_arm, arms = _numbered(chosen, ARM_COLUMNS)
    of_cluster, clusters = _numbered(chosen, ["cluster"])
    # Nothing is crossed with the clusters where no column says what.
    of_crossed, crossed = _numbered(chosen, ["crossed"] if "crossed" in chosen else [])
    shape = (len(arms), len(clusters), len(crossed))
    cell = np.ravel_multi_index((of_arm, of_cluster, of_crossed), shape)
    # An analysis asks for hundreds of totals, and groups of pandas take several times as long.
    n_rows, counts, totals = (
        np.bincount(cell, weights, math.prod(shape)).reshape(shape)
        for weights in (None, chosen["count"], chosen["total"])
    )
    present = n_rows > 0
    if not ((counts == counts[0]).all() and (present == present[0]).all()):
        raise ValueError(
            f"the arms were not measured on the same {measure.name} {sorted(measure.tags)}"
        )
    return Totals(tuple(Arm(*arm) for arm in arms), totals, counts[0])


def _has_tags(categories: pd.Series, tags: Iterable[str]) -> pd.Series:
    """Whether each category has all tags."""
    wanted = set(tags)
    return categories.isin([c for c in categories.unique() if wanted <= set(c.split())])


def _numbered(
    rows: pd.DataFrame, columns: Sequence[str]
) -> tuple[Int[np.ndarray, " row"], list[tuple[Any, ...]]]:
    """The number of each row's values in these columns, and the values of each number, sorted."""
    if not columns:
        return np.zeros(len(rows), np.int64), [()]
    factors = [pd.factorize(rows[column], sort=True) for column in columns]
    codes, values = zip(*factors, strict=True)
    shape = [len(each) for each in values]
    found, numbers = np.unique(np.ravel_multi_index(codes, shape), return_inverse=True)
    of_column = np.unravel_index(found, shape)
    kept = [each[index].tolist() for each, index in zip(values, of_column, strict=True)]
    return numbers, list(zip(*kept, strict=True))


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


def difference_contrast(
    difference: Float[np.ndarray, "cluster crossed"],
    counts: Float[np.ndarray, "cluster crossed"],
    resampling: Resampling,
) -> Contrast:
    """The contrast whose sums of differences are given.

    Clusters are resampled, and with more than one column what crosses them too.
    """
    (found,) = _contrasts(counts, [difference], resampling)
    return found


def effect_over_grid(totals: Totals, resampling: Resampling) -> pd.DataFrame:
    """The true source minus no patch at every cell of the grid, with Holm's correction over them.

    Columns: layer, strength, mode, form, estimate, low, high, n, p_value, p_holm.
    """
    arms = [arm for arm in totals.arms if arm.source == "true"]
    of_arms = contrasts(totals, [(arm, NO_PATCH) for arm in arms], resampling)
    rows = [
        {**asdict(arm.cell), **found.interval.columns(), "p_value": found.p_value}
        for arm, found in zip(arms, of_arms, strict=True)
    ]
    return pd.DataFrame(with_holm(rows))


def shortlist(totals: Totals, n: int, *, lower_is_better: bool) -> list[Cell]:
    """The best cell of each layer for the true source; of these the best `n`, best first."""
    arms = sorted(
        (arm for arm in totals.arms if arm.source == "true"),
        key=totals.mean,
        reverse=not lower_is_better,
    )
    best_of_layer: dict[int, Cell] = {}
    for arm in arms:
        best_of_layer.setdefault(arm.layer, arm.cell)
    return list(best_of_layer.values())[:n]


def best_of_forms(totals: Totals, *, lower_is_better: bool) -> dict[str, Cell]:
    """The best cell of each form for the true source."""
    arms = [arm for arm in totals.arms if arm.source == "true"]
    best = min if lower_is_better else max
    return {
        form: best((arm for arm in arms if arm.form == form), key=totals.mean).cell
        for form in dict.fromkeys(arm.form for arm in arms)
    }


def best_control(totals: Totals, cell: Cell, *, lower_is_better: bool) -> Arm:
    """The control that does best at a cell."""
    return (min if lower_is_better else max)(control_arms(cell), key=totals.mean)


def most_specific(totals: Totals, cells: Sequence[Cell], *, lower_is_better: bool) -> Cell:
    """The cell where the true source is furthest ahead of its best control, or least behind."""

    def disadvantage(cell: Cell) -> float:
        control = best_control(totals, cell, lower_is_better=lower_is_better)
        difference = totals.mean(Arm.at(cell)) - totals.mean(control)
        return difference if lower_is_better else -difference

    return min(cells, key=disadvantage)


def _contrasts(
    cell_counts: Float[np.ndarray, "cluster crossed"],
    differences: Sequence[Float[np.ndarray, "cluster crossed"]],
    resampling: Resampling,
) -> list[Contrast]:
    """A contrast of each of `differences`, with the same resamples for all."""
    if cell_counts.shape[-1] > 1:
        return [crossed_contrast(each, cell_counts, resampling) for each in differences]
    sums, counts = np.stack(differences)[..., 0], cell_counts.sum(-1)
    return [
        Contrast(interval, float(p))
        for interval, p in zip(
            resampling.intervals(sums, counts), _p_values(sums, counts, resampling), strict=True
        )
    ]


def crossed_contrast(
    difference: Float[np.ndarray, "cluster crossed"],
    counts: Float[np.ndarray, "cluster crossed"],
    resampling: Resampling,
) -> Contrast:
    """The contrast whose sums of differences are given, over clusters and what crosses them."""
    interval, p_value = crossed_mean_test(
        difference,
        counts,
        rng=resampling.rng(),
        level=resampling.level,
        n_resamples=resampling.n_resamples,
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
