"""Rank correlations and their intervals."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from lens_interventions.experiments.preservation import correlations
from lens_interventions.experiments.preservation.correlations import (
    copy_correlation,
    crossed_spearman,
    doubly_centred,
    spearman,
)
from lens_interventions.experiments.preservation.token_rows import WITHIN
from tests.support.small_preservation import FEW


def test_spearman_is_scipy_s_and_so_is_its_interval() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=40)
    y = (x + rng.normal(size=40)).round(1)  # with ties
    found = spearman(y, x, np.arange(40), FEW).interval
    assert_allclose(found.estimate, stats.spearmanr(y, x).statistic, atol=1e-12)
    ranks = stats.rankdata(y), stats.rankdata(x)
    expected = stats.bootstrap(
        ranks,
        lambda a, b, axis: stats.pearsonr(a, b, axis=axis).statistic,
        paired=True,
        vectorized=True,
        n_resamples=199,
        method="BCa",
        rng=FEW.rng(),
    ).confidence_interval
    assert_allclose([found.low, found.high], [expected.low, expected.high], atol=1e-9)


def test_partial_correlation_is_that_of_residuals() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=200)
    x, y = z + rng.normal(size=200), z + rng.normal(size=200)
    contrast = spearman(y, x, np.arange(200) // 5, FEW, given=z)
    found = contrast.interval
    ry, rx, rz = (stats.rankdata(v) for v in (y, x, z))
    design = np.stack([np.ones(200), rz], axis=1)
    left = [v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in (ry, rx)]
    assert_allclose(found.estimate, np.corrcoef(left)[0, 1], atol=1e-9)
    assert found.n == 40
    # Only z ties them together.
    assert spearman(y, x, np.arange(200) // 5, FEW).interval.low > 0.2
    assert found.low < 0 < found.high
    assert contrast.p_value > 0.05


def test_copies_of_a_text_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=30), rng.normal(size=30)
    once = spearman(y, x, np.arange(30), FEW).interval
    copied = spearman(np.repeat(y, 9), np.repeat(x, 9), np.repeat(np.arange(30), 9), FEW).interval
    assert_allclose([copied.low, copied.high], [once.low, once.high], atol=1e-9)


def test_a_constant_has_no_correlation() -> None:
    documents, x = np.arange(20) // 2, np.arange(20.0)
    found = [
        spearman(np.ones(20), x, documents, FEW),
        crossed_spearman(np.ones(20), x, documents, np.arange(20) % 4, FEW),
        crossed_spearman(x[::-1], x, documents, np.arange(20) % 4, FEW, given=x),
    ]
    assert [(each.interval.method, each.p_value) for each in found] == [("none", 1.0)] * 3
    assert all(np.isnan(each.interval.estimate) for each in found)


def test_double_centring_is_the_residual_of_both_means() -> None:
    rng = np.random.default_rng(4)
    rows, columns = rng.integers(0, 5, 60), rng.integers(0, 4, 60)
    values = rng.normal(size=60) + rows - 2.0 * columns
    dummies = np.concatenate([np.eye(5)[rows], np.eye(4)[columns]], axis=1)
    fitted = dummies @ np.linalg.lstsq(dummies, values, rcond=None)[0]
    assert_allclose(doubly_centred(values, rows, columns), values - fitted, atol=1e-9)


def test_the_far_version_of_a_sentence_is_another_sentence() -> None:
    """What distance does to both variables is no correlation within words and sentences."""
    rng = np.random.default_rng(6)
    items = pd.MultiIndex.from_product(
        [range(8), range(4), ("near", "far")], names=["said", "frame", "distance"]
    ).to_frame(index=False)
    far = 9.0 * (items["distance"] == "far")
    items = items.assign(
        group="g",
        said=items["said"].astype(str),
        frame=items["frame"].astype(str),
        copy_log_prob=rng.normal(size=len(items)) + far,
    )
    kept = rng.normal(size=len(items)) + far.to_numpy()
    dummies = pd.concat(
        [pd.get_dummies(items["said"]), pd.get_dummies(items["frame"] + items["distance"])], axis=1
    ).to_numpy(dtype=float)
    residuals = [
        values - dummies @ np.linalg.lstsq(dummies, values, rcond=None)[0]
        for values in (kept, items["copy_log_prob"].to_numpy())
    ]
    found = copy_correlation(items, kept, WITHIN, FEW, crossed=False).interval.estimate
    assert found == pytest.approx(stats.spearmanr(*residuals).statistic, abs=1e-9)


def test_a_correlation_that_rests_on_a_few_kinds_of_token_is_not_certain() -> None:
    """Kinds differ in both variables by chance, and each kind fills many documents."""
    rng = np.random.default_rng(3)
    documents, kinds = np.repeat(np.arange(40), 50), rng.integers(0, 25, 2000)
    missed = {"documents": 0, "both": 0}
    for _ in range(40):
        x, y = (rng.normal(size=25)[kinds] + 0.3 * rng.normal(size=2000) for _ in range(2))
        alone = spearman(y, x, documents, FEW)
        both = crossed_spearman(y, x, documents, kinds, FEW)
        assert_allclose(both.interval.estimate, alone.interval.estimate, atol=1e-12)
        missed["documents"] += not alone.interval.low < 0 < alone.interval.high
        missed["both"] += not both.interval.low < 0 < both.interval.high
    # Of 40 intervals at 95%, more than 6 miss with a chance of 0.3%.
    assert missed["both"] <= 6
    assert missed["documents"] > 20


def test_a_few_common_kinds_count_as_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rarity is that of the kind, and 2 of 5 tokens are of one kind."""
    rng = np.random.default_rng(3)
    kinds, documents = np.minimum(rng.zipf(1.5, 2000), 300), np.repeat(np.arange(40), 50)
    missed = {"few": 0, "as many as there are": 0}
    for name in missed:
        if name != "few":
            monkeypatch.setattr(correlations, "_freedom", lambda *_: np.inf)
        for _ in range(100):
            y = rng.normal(size=301)[kinds] + 0.3 * rng.normal(size=2000)
            found = crossed_spearman(y, np.log(kinds), documents, kinds, FEW).interval
            missed[name] += not found.low < 0 < found.high
    # Of 100 intervals at 95%, more than 12 miss with a chance of 0.15%.
    assert missed["few"] <= 12
    assert missed["as many as there are"] > 40


def test_crossed_intervals_of_documents_alone_are_as_wide() -> None:
    """Where each token is of its own kind, only documents are left to vary."""
    rng = np.random.default_rng(4)
    documents = np.repeat(np.arange(60), 5)
    z = rng.normal(size=300)
    x, y = (z + rng.normal(size=300) + rng.normal(size=60)[documents] for _ in range(2))
    alone = spearman(y, x, documents, FEW, given=z).interval
    both = crossed_spearman(y, x, documents, np.arange(300), FEW, given=z).interval
    assert_allclose(both.estimate, alone.estimate, atol=1e-12)
    # Single tokens count up to twice more, and 199 resamples are few.
    assert 0.8 < (both.high - both.low) / (alone.high - alone.low) < 2


def test_a_close_correlation_is_as_certain_as_a_bootstrap_of_documents_says() -> None:
    """The closer two rankings are, the less a resample moves their correlation."""
    rng = np.random.default_rng(5)
    documents = np.repeat(np.arange(60), 5)
    z = rng.normal(size=300) + rng.normal(size=60)[documents]
    x, y = (z + 0.2 * rng.normal(size=300) for _ in range(2))
    ranks = np.stack([stats.rankdata(values) for values in (y, x)]).reshape(2, 60, 5)
    resampled = [
        np.corrcoef(ranks[:, rng.integers(0, 60, 60)].reshape(2, -1))[0, 1] for _ in range(999)
    ]
    both = crossed_spearman(y, x, documents, np.arange(300), FEW).interval
    assert_allclose(both.estimate, stats.spearmanr(y, x).statistic, atol=1e-12)
    # Single tokens count up to twice more, and 199 resamples are few.
    assert 0.8 < (both.high - both.low) / (4 * np.std(resampled)) < 2


def test_two_rankings_that_are_the_same_are_certain_to_be() -> None:
    values = np.random.default_rng(6).normal(size=120)
    documents, kinds = np.arange(120) // 6, np.arange(120) % 15
    found = crossed_spearman(np.exp(values), values, documents, kinds, FEW).interval
    # Sums of 120 products in float64.
    assert_allclose([found.estimate, found.low, found.high], 1, atol=1e-12)


def test_no_interval_leaves_the_range_of_correlations() -> None:
    rng = np.random.default_rng(3)
    rows, columns = np.repeat([0, 1], 6), np.tile(np.arange(6), 2)
    found = crossed_spearman(rng.normal(size=12), rng.normal(size=12), rows, columns, FEW).interval
    assert (found.low, found.high) == (-1, 1)
