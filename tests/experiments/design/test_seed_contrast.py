"""Differences over seeds and texts."""

import numpy as np
import pandas as pd
import pytest

from lens_interventions.experiments.design.contrasts import Resampling, seed_contrast
from lens_interventions.experiments.design.rows_of_sums import rows_where


def rows(seeds: tuple[int, ...] = (0, 1, 2), more: float = 0.0) -> pd.DataFrame:
    """Four texts of 5 to 8 tokens, the later the costlier."""
    texts = [(seed, text) for seed in seeds for text in range(4)]
    table = pd.DataFrame(texts, columns=["seed", "cluster"])
    return table.assign(
        count=table["cluster"] + 5, total=(table["cluster"] + more) * (table["cluster"] + 5)
    )


def test_a_difference_of_trainings_is_that_of_their_means():
    resampling = Resampling(n_resamples=99)
    for seeds in ((0,), (0, 1, 2)):
        interval = seed_contrast(rows(seeds, more=0.25), rows(seeds), resampling).interval
        np.testing.assert_allclose([interval.estimate, interval.low, interval.high], 0.25)
    uneven = rows(more=0.25)
    uneven["total"] += (uneven["seed"] - 1) * uneven["count"]
    found = seed_contrast(uneven, rows(), resampling).interval
    assert found.estimate == pytest.approx(0.25)
    assert found.high - found.low > 1


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_texts_without_a_token_that_counts_are_not_there(seeds):
    resampling = Resampling(n_resamples=99)
    # Ten more texts, in which nothing was counted.
    empty = pd.DataFrame(
        [(seed, text, 0, 0.0) for seed in seeds for text in range(4, 14)],
        columns=["seed", "cluster", "count", "total"],
    )
    one = rows(seeds).assign(total=lambda table: table["total"] + table["cluster"] + table["seed"])
    found = seed_contrast(pd.concat([one, empty]), pd.concat([rows(seeds), empty]), resampling)
    mean = (one["total"].sum() - rows(seeds)["total"].sum()) / one["count"].sum()
    # Sums of a few hundreds in float64.
    assert found.interval.estimate == pytest.approx(mean, abs=1e-12)
    assert found.interval.n == (4 if len(seeds) == 1 else 3)
    assert found == seed_contrast(one, rows(seeds), resampling)


def test_what_was_measured_once_is_the_same_for_all_seeds():
    resampling = Resampling(n_resamples=99)
    once = rows((0,))
    each = pd.concat([once.assign(seed=seed) for seed in (0, 1, 2)])
    uneven = rows(more=0.25).assign(total=lambda table: table["total"] + table["seed"])
    assert seed_contrast(uneven, once, resampling) == seed_contrast(uneven, each, resampling)


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (rows(), rows((0, 1)), "same seeds on the same texts"),
        (rows((0,)), rows((0, 1)), "same seeds on the same texts"),
        (rows(), rows().assign(count=1), "same seeds on the same texts"),
        (rows(), rows((0,)).assign(count=1), "same seeds on the same texts"),
        (rows(), rows((0,)).iloc[1:], "same seeds on the same texts"),
        (rows((0, 1)), rows((7, 9)), "same seeds on the same texts"),
        (rows(), rows().assign(cluster=lambda t: t["cluster"] + 4), "same seeds on the same texts"),
        (rows(), rows(()), "no rows"),
    ],
)
def test_trainings_that_do_not_compare_are_refused(one, other, message):
    with pytest.raises(ValueError, match=message):
        seed_contrast(one, other, Resampling(n_resamples=99))


def test_rows_are_chosen_by_their_values():
    table = rows()
    assert rows_where(table, seed=1, cluster=3).index.tolist() == [7]
    with pytest.raises(ValueError, match="no rows of seed 1, cluster 9"):
        rows_where(table, seed=1, cluster=9)
