"""What small networks are trained on, and how they are compared."""

import numpy as np
import pandas as pd
import pytest

from lens_interventions.experiments.design.contrasts import Resampling
from lens_interventions.experiments.design.small_networks.contrasts import seed_contrast
from lens_interventions.experiments.design.small_networks.corpus import corpus_of
from tests.support.small_scratch import SMALL


def test_held_out_windows_share_no_run_with_the_training_text():
    corpus = corpus_of(SMALL.corpus)
    runs = {tuple(run) for run in corpus.training.unfold(0, 24, 1).tolist()}
    for window in corpus.windows:
        assert runs.isdisjoint(tuple(run) for run in window.unfold(0, 24, 1).tolist())
    assert corpus.training[0] == 0
    assert "".join(corpus.tokenizer.decode(corpus.windows[0])) != ""


def rows(seeds: tuple[int, ...] = (0, 1, 2), more: float = 0.0) -> pd.DataFrame:
    """Four texts of 5 to 8 tokens, the later the costlier."""
    texts = [(seed, text) for seed in seeds for text in range(4)]
    table = pd.DataFrame(texts, columns=["seed", "cluster"])
    return table.assign(
        count=table["cluster"] + 5, total=(table["cluster"] + more) * (table["cluster"] + 5)
    )


def test_a_difference_of_networks_is_that_of_their_means():
    resampling = Resampling(n_resamples=99)
    for seeds in ((0,), (0, 1, 2)):
        interval = seed_contrast(rows(seeds, more=0.25), rows(seeds), resampling).interval
        np.testing.assert_allclose([interval.estimate, interval.low, interval.high], 0.25)
    uneven = rows(more=0.25)
    uneven["total"] += (uneven["seed"] - 1) * uneven["count"]
    found = seed_contrast(uneven, rows(), resampling).interval
    assert found.estimate == pytest.approx(0.25)
    assert found.high - found.low > 1


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (rows(), rows((0, 1)), "same seeds on the same texts"),
        (rows(), rows().assign(count=1), "same seeds on the same texts"),
        (rows(), rows(()), "no rows"),
    ],
)
def test_networks_that_do_not_compare_are_refused(one, other, message):
    with pytest.raises(ValueError, match=message):
        seed_contrast(one, other, Resampling(n_resamples=99))
