"""Sums of a measure per arm and cluster, which comparisons are made from.

Rows are sums: `total` over `count` tokens or items, for one arm, sequence, measure and category.
`cluster` is what an interval resamples, a sequence, document or word; rows of one cluster are added
up first. Where `crossed` says more, such as the frame around a word, both are resampled: another
study would have chosen other words and other frames. A category is a set of tags in one string,
"far rare single".
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from .conditions import ARM_COLUMNS, Arm

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
class Totals:
    """Sums of one measure per arm and cell, which is a cluster and what is crossed with it.

    Attributes:
        arms: in the order of the first axis.
        cells: `[arm, cluster, crossed]`; one column where nothing is crossed with the clusters, and
            one axis more where something else is.
        cell_counts: `[cluster, crossed]`, the same for all arms; 0 where there is no such cell.
        lower_is_better: that of the measure.
    """

    arms: tuple[Arm, ...]
    cells: Float[np.ndarray, "arm cluster ..."]
    cell_counts: Float[np.ndarray, "cluster ..."]
    lower_is_better: bool = True

    @property
    def are_crossed(self) -> bool:
        """Whether something is crossed with the clusters."""
        return max(self.cell_counts.shape[1:]) > 1

    @property
    def true_arms(self) -> list[Arm]:
        """The arms of the true source."""
        return [arm for arm in self.arms if arm.source == "true"]

    @property
    def counts(self) -> Float[np.ndarray, " cluster"]:
        """The counts of each cluster."""
        return self.cell_counts.reshape(len(self.cell_counts), -1).sum(-1)

    @property
    def n_clusters(self) -> int:
        """How many clusters have something to count."""
        return int((self.counts > 0).sum())

    def of(self, arm: Arm) -> Float[np.ndarray, " cluster"]:
        """The sums of one arm in each cluster."""
        return self.cells[self.arms.index(arm)].reshape(len(self.cell_counts), -1).sum(-1)

    def mean(self, arm: Arm) -> float:
        """The mean over all tokens or items; nan if there are none."""
        count = self.counts.sum()
        return float(self.of(arm).sum() / count) if count else float("nan")

    def best(self, arms: Iterable[Arm]) -> Arm:
        """The arm with the best mean, the first of equals."""
        return (min if self.lower_is_better else max)(arms, key=self.mean)

    def lead(self, arm: Arm, controls: Iterable[Arm]) -> float:
        """How far the mean of `arm` is ahead of the best control's; below 0 if it is behind."""
        difference = self.mean(arm) - self.mean(self.best(controls))
        return -difference if self.lower_is_better else difference

    def difference(self, arm: Arm, reference: Arm) -> Float[np.ndarray, "cluster ..."]:
        """The sums of `arm` minus those of `reference` in each cell."""
        return self.cells[self.arms.index(arm)] - self.cells[self.arms.index(reference)]


def rows_with_tables(parts: Mapping[str, pd.DataFrame], *more: str) -> pd.DataFrame:
    """The rows of several tables, with the name of theirs and `more` of their columns.

    A finished run keeps them, so that a reader recomputes its numbers.
    """
    named = [part.assign(table=table) for table, part in parts.items()]
    return pd.concat(named, ignore_index=True)[["table", *more, *ROW_COLUMNS]]


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
    made = tuple(Arm(*arm) for arm in arms)
    return Totals(made, totals, counts[0], measure.lower_is_better)


def totals_by_category(
    rows: pd.DataFrame, measure: Measure, categories: Mapping[str, Iterable[str]], half: str
) -> Iterator[tuple[str, Measure, Totals]]:
    """Each category by its name: the measure on the rows with its tags, and their totals.

    Categories with nothing to count on this half are left out.
    """
    for name, tags in categories.items():
        of_category = replace(measure, tags=frozenset(tags))
        if not tagged(rows, of_category.tags).query("half == @half").empty:
            totals = totals_of(rows, of_category, half)
            if totals.counts.sum() > 0:
                yield name, of_category, totals


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
