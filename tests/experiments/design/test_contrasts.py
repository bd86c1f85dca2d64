"""Contrasts of conditions: what is added up, what is refused, which cell is chosen."""

import itertools
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest

from lens_interventions.experiments.design.conditions import NO_PATCH, Arm, Cell, control_arms
from lens_interventions.experiments.design.contrasts import (
    Resampling,
    contrast,
    mean_contrast,
    with_holm,
)
from lens_interventions.experiments.design.grid_cells import (
    effect_over_grid,
    most_specific,
    shortlist,
)
from lens_interventions.experiments.design.totals import Measure, Totals, totals_of
from lens_interventions.measures.crossed import crossed_mean_interval


def rows_of(values: dict[Arm, list[tuple[str, float, int]]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "half": "report",
                "sequence": n,
                "cluster": cluster,
                **arm.columns(),
                "measure": "loss",
                "category": "t copyable",
                "total": value,
                "count": count,
            }
            for arm, sequences in values.items()
            for n, (cluster, value, count) in enumerate(sequences)
        ]
    )


TRUE = Arm("true", 1, 0.1, "add")


def test_sequences_of_a_cluster_are_added_up() -> None:
    rows = rows_of(
        {
            NO_PATCH: [("a", 4.0, 2), ("a", 2.0, 1), ("b", 5.0, 5)],
            TRUE: [("a", 3.0, 2), ("a", 2.0, 1), ("b", 0.0, 5)],
        }
    )
    totals = totals_of(rows, Measure("loss", frozenset({"copyable"})), "report")
    assert totals.counts.tolist() == [3, 5]
    assert totals.of(TRUE).tolist() == [5, 0]
    assert totals.mean(NO_PATCH) == 11 / 8
    compared = contrast(totals, TRUE, NO_PATCH, Resampling(n_resamples=99))
    assert compared.interval.estimate == -6 / 8
    assert compared.interval.n == 2
    # Differences -1 and -5: of the four ways to sign them two have a sum of 6 or more either way.
    assert compared.p_value == 0.5


def words_in_frames(word_sd: float, frame_sd: float, gain: float) -> pd.DataFrame:
    """Two groups of 8 words by 6 frames each; the true source differs by `gain` and by both."""
    rng = np.random.default_rng(3)
    parts = []
    for group in ("idea", "thing"):
        words, frames = word_sd * rng.standard_normal(8), frame_sd * rng.standard_normal(6)
        for (w, word), (f, frame) in itertools.product(enumerate(words), enumerate(frames)):
            value = 5 + gain + word + frame + 0.1 * rng.standard_normal()
            cluster = f"{group} {w}"
            rows = rows_of({NO_PATCH: [(cluster, 5.0, 1)], TRUE: [(cluster, value, 1)]})
            parts.append(rows.assign(crossed=f"{group} {f}", sequence=len(parts)))
    return pd.concat(parts, ignore_index=True)


def test_words_and_the_frames_around_them_are_both_resampled() -> None:
    resampling = Resampling(n_resamples=999)
    rows = words_in_frames(word_sd=0.1, frame_sd=1.0, gain=-0.6)
    totals = totals_of(rows, Measure("loss"), "report")
    crossed = contrast(totals, TRUE, NO_PATCH, resampling)
    by_words = totals_of(rows.drop(columns="crossed"), Measure("loss"), "report")
    words_alone = contrast(by_words, TRUE, NO_PATCH, resampling)
    assert totals.of(TRUE).tolist() == pytest.approx(by_words.of(TRUE).tolist(), abs=1e-12)
    assert totals.counts.tolist() == by_words.counts.tolist() == [6] * 16
    assert crossed.interval.estimate == pytest.approx(words_alone.interval.estimate, abs=1e-12)
    # Frames differ by one and words hardly, so words alone seem to know the effect well.
    width = crossed.interval.high - crossed.interval.low
    assert width > 2 * (words_alone.interval.high - words_alone.interval.low)
    assert crossed.p_value > 10 * words_alone.p_value
    # Each word and each frame is in its group alone.
    true = rows[rows["source"] == "true"]
    cells = true.pivot(index="cluster", columns="crossed", values="total")
    counts = cells.notna().to_numpy(dtype=np.float64)
    assert counts.sum() == 96
    expected = crossed_mean_interval(
        cells.fillna(5).to_numpy() - 5, counts, rng=resampling.rng(), n_resamples=999
    )
    assert asdict(crossed.interval) == pytest.approx(asdict(expected), abs=1e-12)
    grid = effect_over_grid(totals, resampling).loc[0]
    assert (grid["low"], grid["p_value"]) == (crossed.interval.low, crossed.p_value)


@pytest.mark.parametrize("seeds", [0, 1, 3])
def test_all_frames_of_a_word_count_and_those_that_it_lacks_do_not(seeds: int) -> None:
    rng = np.random.default_rng(8)
    counts = np.array([[2, 1, 0, 3], [1, 1, 4, 0], [0, 2, 2, 1], [0, 0, 0, 0], [5, 1, 1, 1.0]])
    # Without seeds there is no such axis; a single one is no sample.
    shape = (5, 4, seeds) if seeds else (5, 4)
    crossed = np.broadcast_to(counts[..., None], shape) if seeds else counts
    sums = (5 + rng.standard_normal((2, *shape))) * crossed
    totals = Totals((TRUE, NO_PATCH), sums, crossed)
    found = contrast(totals, TRUE, NO_PATCH, Resampling(n_resamples=99)).interval
    # Sums of 60 numbers in float64.
    mean = (sums[0] - sums[1]).sum() / crossed.sum()
    assert found.estimate == pytest.approx(mean, abs=1e-12)
    assert totals.mean(TRUE) - totals.mean(NO_PATCH) == pytest.approx(mean, abs=1e-12)
    # One word has no frames.
    assert found.n == min(4, seeds if seeds > 1 else 4)
    assert found.method == "crossed t"


def test_arms_measured_on_different_tokens_are_refused() -> None:
    rows = rows_of({NO_PATCH: [("a", 4.0, 2), ("b", 5.0, 5)], TRUE: [("a", 3.0, 2)]})
    with pytest.raises(ValueError, match="not measured on the same loss"):
        totals_of(rows, Measure("loss"), "report")


def test_a_measure_without_rows_is_refused() -> None:
    rows = rows_of({NO_PATCH: [("a", 4.0, 2)]})
    with pytest.raises(ValueError, match=r"no rows of loss \['rare'\] on the report half"):
        totals_of(rows, Measure("loss", frozenset({"rare"})), "report")


def test_the_shortlist_has_one_cell_of_each_layer_and_the_most_specific_wins() -> None:
    true = {(1, 0.1): 1.0, (1, 0.3): 1.1, (2, 0.1): 2.0, (2, 0.3): 1.9, (3, 0.1): 3.0}
    cells = {key: Cell(*key, "add") for key in true}
    values = {NO_PATCH: [("a", 4.0, 1), ("b", 4.0, 1)]}
    values |= {Arm.at(cells[k]): [("a", v, 1), ("b", v, 1)] for k, v in true.items()}
    # At (1, 0.1) a control is as good as the true token, at (2, 0.3) none is.
    for key, best in (((1, 0.1), 1.0), ((2, 0.3), 3.5)):
        for place, control in enumerate(control_arms(cells[key])):
            v = best + place
            values[control] = [("a", v, 1), ("b", v, 1)]
    totals = totals_of(rows_of(values), Measure("loss"), "report")
    short = shortlist(totals, 2)
    assert short == [cells[1, 0.1], cells[2, 0.3]]
    assert most_specific(totals, short) == cells[2, 0.3]
    assert shortlist(replace(totals, lower_is_better=False), 1) == [cells[3, 0.1]]
    first, *others = control_arms(cells[1, 0.1])
    assert totals.best([*others, first]) == first
    # The same where more is better.
    mirrored = {arm: [(a, 8 - v, n) for a, v, n in items] for arm, items in values.items()}
    measure = Measure("loss", lower_is_better=False)
    totals = totals_of(rows_of(mirrored), measure, "report")
    assert most_specific(totals, short) == cells[2, 0.3]
    assert totals.best([*others, first]) == first


def test_cells_of_a_table_are_corrected_together() -> None:
    rows = with_holm([{"p_value": p} for p in (0.01, 0.04, 0.03, 0.005)])
    assert [row["p_holm"] for row in rows] == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_a_cluster_without_a_count_may_be_missing():
    values, resampling = np.array([1.0, 2.0, 4.0]), Resampling(n_resamples=99)
    found = mean_contrast(np.append(values, np.nan), resampling, np.array([1.0, 1, 1, 0]))
    assert found == mean_contrast(values, resampling)


def test_a_seed_below_zero_is_refused_at_once():
    with pytest.raises(ValueError, match="seed at least 0"):
        Resampling(seed=-1)
