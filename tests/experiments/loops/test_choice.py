"""What the selection half chooses, on planted losses."""

import pandas as pd

from lens_interventions.experiments.design.conditions import NO_PATCH, Arm, Cell, control_arms
from lens_interventions.experiments.design.rules import GREEDY
from lens_interventions.experiments.loops.choice import affordable
from tests.support.small_loops import SETTINGS

CELL = Cell(1, 0.5, "interpolate")


def losses(selection: dict[Arm, float], report: dict[Arm, float]) -> pd.DataFrame:
    """Two documents in each half, of 10 tokens each, with these losses a token."""
    return pd.DataFrame(
        [
            {
                "half": half,
                "cluster": f"{half} {number}",
                **arm.columns(),
                "rule": str(GREEDY),
                "measure": "loss",
                "category": "",
                "total": 10 * loss,
                "count": 10,
            }
            for half, of_half in (("selection", selection), ("report", report))
            for arm, loss in of_half.items()
            for number in range(2)
        ]
    )


def test_controls_count_by_their_loss_on_the_half_that_selects() -> None:
    first, second, *others = control_arms(CELL)
    far = 2 + 10 * SETTINGS.loss_budget
    ruined = {NO_PATCH: 2.0, **dict.fromkeys((first, second, *others), far)}
    near = 2 + SETTINGS.loss_budget / 2
    table = losses(selection=ruined | {first: near}, report=ruined | {second: near})
    assert affordable(control_arms(CELL), {"loss": table}, SETTINGS) == (first,)
