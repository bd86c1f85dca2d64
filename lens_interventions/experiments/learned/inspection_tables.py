"""Tables of the inspection: directions, geometry, attention, and the write taken away."""

from typing import Any

import numpy as np
import pandas as pd

from ..engine.results import Tables
from .inspection import EVERYWHERE, WITHOUT_MATCHED, WITHOUT_OTHERS
from .settings import LearnedSettings


def read_tables_of(settings: LearnedSettings, rows: Tables) -> dict[str, pd.DataFrame]:
    """The tables of the inspection by name; "attention" only for a model that shows it."""
    tables = {
        "ablation": _ablation(settings, rows["ablation"]),
        "directions": rows["directions"],
        "geometry": rows["geometry"],
    }
    if "attention" in rows:
        tables["attention"] = attention_changes(rows["attention"])
    return tables


def attention_changes(rows: pd.DataFrame) -> pd.DataFrame:
    """Changes of attention, means over sequences and seeds, the largest change first."""
    keys = ["layer", "head", "kind"]
    found = rows.groupby(keys, sort=True)[["clean", "patched"]].mean().reset_index()
    found["change"] = found["patched"] - found["clean"]
    order = found["change"].abs().sort_values(ascending=False, kind="stable").index
    return found.loc[order].reset_index(drop=True)


def _ablation(settings: LearnedSettings, rows: pd.DataFrame) -> pd.DataFrame:
    """The change of the loss on the second copy: means over seeds, intervals over sequences."""
    keys = ["cluster", "condition"]
    means = rows.groupby(keys, sort=True)[["total", "count"]].mean().unstack("condition")
    totals, counts = means["total"], means["count"]["none"].to_numpy(dtype=np.float64)
    pairs = [
        *((condition, "none") for condition in (EVERYWHERE, WITHOUT_MATCHED, WITHOUT_OTHERS)),
        (WITHOUT_MATCHED, EVERYWHERE),
        (WITHOUT_OTHERS, EVERYWHERE),
    ]
    found: list[dict[str, Any]] = []
    for condition, minus in pairs:
        difference = (totals[condition] - totals[minus]).to_numpy(dtype=np.float64)
        interval = settings.resampling.interval(difference, counts)
        found.append(
            {
                "condition": condition,
                "minus": minus,
                **interval.columns(),
            }
        )
    return pd.DataFrame(found)
