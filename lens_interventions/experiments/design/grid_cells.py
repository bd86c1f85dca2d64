"""The cells of the grid: the effect at each, and which are chosen."""

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from .conditions import NO_PATCH, Arm, Cell, control_arms
from .contrasts import Resampling, contrasts, with_holm
from .totals import Totals


def effect_over_grid(totals: Totals, resampling: Resampling) -> pd.DataFrame:
    """The true source minus no patch at every cell of the grid, with Holm's correction over them.

    Columns: layer, strength, mode, form, estimate, low, high, n, p_value, p_holm.
    """
    arms = totals.true_arms
    of_arms = contrasts(totals, [(arm, NO_PATCH) for arm in arms], resampling)
    rows = [
        {**asdict(arm.cell), **found.interval.columns(), "p_value": found.p_value}
        for arm, found in zip(arms, of_arms, strict=True)
    ]
    return pd.DataFrame(with_holm(rows))


def shortlist(totals: Totals, n: int) -> list[Cell]:
    """The best cell of each layer for the true source; of these the best `n`, best first."""
    best_of_layer: dict[int, Cell] = {}
    for arm in sorted(totals.true_arms, key=totals.mean, reverse=not totals.lower_is_better):
        best_of_layer.setdefault(arm.layer, arm.cell)
    return list(best_of_layer.values())[:n]


def best_of_forms(totals: Totals) -> dict[str, Cell]:
    """The best cell of each form for the true source."""
    arms = totals.true_arms
    return {
        form: totals.best(arm for arm in arms if arm.form == form).cell
        for form in dict.fromkeys(arm.form for arm in arms)
    }


def most_specific(totals: Totals, cells: Sequence[Cell]) -> Cell:
    """The cell where the true source is furthest ahead of its best control, or least behind."""
    return max(cells, key=lambda cell: totals.lead(Arm.at(cell), control_arms(cell)))
