"""From the rows of the upbringing experiment to tables and verdicts."""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from ...model.points import FINAL, select_points
from ..design.contrasts import seed_contrast
from ..design.rows_of_sums import range_of_seeds, rows_where
from ..design.text_scopes import ALL
from ..engine.results import Analysis, Tables
from .arms import ARMS, NO_DECAY, PLAIN, STRONG_DECAY
from .evaluation import KL, LOSS, RECOVERED, WEIGHTS
from .figures import draw
from .findings import findings, middle_point
from .settings import UpbringingSettings
from .stages import TABLE


def analyse(settings: UpbringingSettings, rows: Tables) -> Analysis:
    """Tables, ten verdicts and figures."""
    measured = rows[TABLE]
    final = measured[measured["step"] == settings.steps]
    tables = {
        "contrasts": contrasts(settings, final),
        "layers": range_of_seeds(_measured(final), ["arm", "measure", "scope", "point"]),
        "curves": curve_table(settings, measured),
        "recall": recall(settings, final),
        "weights": weights(final),
        "rows": kept_rows(final),
    }
    return Analysis(tables, findings(settings, final), draw)


def kept_rows(final: pd.DataFrame) -> pd.DataFrame:
    """What was measured on single windows at the end, so that a reader recomputes a contrast.

    Columns: arm, seed, measure, scope, point, row, cluster, total, count.
    """
    columns = ["arm", "seed", "measure", "scope", "point", "row", "cluster", "total", "count"]
    return _measured(final)[columns].reset_index(drop=True)


def contrasts(settings: UpbringingSettings, final: pd.DataFrame) -> pd.DataFrame:
    """Every arm minus the plain one, and strong decay minus none, at the end.

    Columns: measure, scope, point, arm, minus, estimate, low, high, level, method, n, p_value. Of
    losses and divergences the estimate is in nats a token, otherwise a share of tokens.
    """
    pairs = [*((arm, PLAIN) for arm in ARMS if arm != PLAIN), (STRONG_DECAY, NO_DECAY)]
    keys = ["measure", "scope", "point"]
    found: list[dict[str, Any]] = []
    for (measure, scope, point), here in _measured(final).groupby(keys, sort=False):
        for arm, minus in pairs:
            one, other = (rows_where(here, arm=name) for name in (arm, minus))
            contrast = seed_contrast(one, other, settings.resampling)
            named = {"measure": measure, "scope": scope, "point": point, "arm": arm, "minus": minus}
            found.append({**named, **contrast.columns()})
    return pd.DataFrame(found)


def curve_table(settings: UpbringingSettings, measured: pd.DataFrame) -> pd.DataFrame:
    """The loss at the output and KL(final ‖ middle) during training.

    They are measured on the same windows at each step. Columns: arm, measure, scope, point, step,
    mean, lowest, highest. Lowest and highest are those of the seeds.
    """
    is_loss = (measured["measure"] == LOSS) & (measured["point"] == FINAL)
    is_kl = (measured["measure"] == KL) & (measured["point"] == middle_point(settings))
    kept = measured[(is_loss | is_kl) & (measured["row"] < settings.windows[0])]
    return range_of_seeds(kept, ["arm", "measure", "scope", "point", "step"])


def recall(settings: UpbringingSettings, final: pd.DataFrame) -> pd.DataFrame:
    """By how much more of the input each point recovers than the one before it, in each arm.

    Columns: arm, point, minus, estimate, low, high, level, method, n, p_value; a share of tokens.
    """
    pairs = [(later, earlier) for earlier, later in pairwise(select_points(settings.blocks))]
    found: list[dict[str, Any]] = []
    for arm in ARMS:
        for point, minus in pairs:
            one, other = (
                rows_where(final, arm=arm, measure=RECOVERED, scope=ALL, point=place)
                for place in (point, minus)
            )
            contrast = seed_contrast(one, other, settings.resampling)
            found.append({"arm": arm, "point": point, "minus": minus, **contrast.columns()})
    return pd.DataFrame(found)


def weights(final: pd.DataFrame) -> pd.DataFrame:
    """The root mean square of the weights of all blocks' matrices.

    Columns: arm, seed, size.
    """
    here = final[final["measure"] == WEIGHTS]
    size = np.sqrt(here["total"] / here["count"])
    return here[["arm", "seed"]].assign(size=size).reset_index(drop=True)


def _measured(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that are of text."""
    return rows[rows["measure"] != WEIGHTS]
