"""Contrasts of conditions: what is added up, what is refused, which cell is chosen."""

import pandas as pd
import pytest

from lens_interventions.experiments.design.conditions import NO_PATCH, Arm, Cell, control_arms
from lens_interventions.experiments.design.contrasts import (
    Measure,
    Resampling,
    contrast,
    most_specific,
    shortlist,
    totals_of,
)


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
    short = shortlist(totals, 2, lower_is_better=True)
    assert short == [cells[1, 0.1], cells[2, 0.3]]
    assert most_specific(totals, short, lower_is_better=True) == cells[2, 0.3]
    assert shortlist(totals, 1, lower_is_better=False) == [cells[3, 0.1]]
