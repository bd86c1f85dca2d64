"""Tables of the sweeps, on planted losses."""

from dataclasses import replace

import pandas as pd
import pytest

from lens_interventions.experiments.design.conditions import NO_PATCH, Arm
from lens_interventions.experiments.learned.stages import layer_trainings
from lens_interventions.experiments.learned.sweeps import sweep_tables
from tests.support.planted_learned import SETTINGS

SWEPT = replace(SETTINGS, sweep_layers=(1,), sweep_ranks=(), sweep_controls=("current", "shuffled"))


def rows_of(losses: dict[str, dict[Arm, float]]) -> pd.DataFrame:
    """Four sequences of 10 tokens in each half, with these losses a token."""
    return pd.DataFrame(
        [
            {
                "half": half,
                "sequence": number,
                "cluster": f"{half} {number}",
                "crossed": "",
                **arm.columns(),
                "measure": "loss",
                "category": "all copyable",
                "total": 10 * loss + number,
                "count": 10,
            }
            for half, of_half in losses.items()
            for arm, loss in of_half.items()
            for number in range(4)
        ]
    )


def test_the_best_control_of_a_sweep_is_chosen_where_it_is_not_reported() -> None:
    arms = {training.source: training.arm for training in layer_trainings(SWEPT)}
    # Of the controls "shuffled" does best where they are chosen, and "current" where they are not.
    losses = {
        "selection": {"true": 1.0, "shuffled": 2.0, "current": 3.0},
        "report": {"true": 1.5, "shuffled": 2.75, "current": 2.25},
    }
    table = rows_of(
        {
            half: {NO_PATCH: 4.0, **{arms[name]: loss for name, loss in of.items()}}
            for half, of in losses.items()
        }
    )
    found = sweep_tables(SWEPT, {"induction": table, "text": table})
    for name, half in (("layers", "selection"), ("best", "report")):
        of = losses[half]
        expected = {
            ("true", "shuffled"): of["true"] - of["shuffled"],
            ("true", "none"): of["true"] - 4,
            ("shuffled", "none"): of["shuffled"] - 4,
        }
        assert set(found[name]["half"]) == {half}
        for _, rows in found[name].groupby("material"):
            estimates = rows.set_index(["source", "minus"])["estimate"].to_dict()
            # Sums of a few tens in float64.
            assert estimates == pytest.approx(expected, abs=1e-12)
