"""The most that any cell of the grid could gain."""

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from ..design.conditions import NO_PATCH
from ..design.contrasts import totals_of
from ..design.sequences import SELECTION
from ..design.simultaneous import simultaneous_band
from ..engine.results import Tables
from .questions import QUESTIONS
from .settings import CopyingSettings


def bounds(settings: CopyingSettings, rows: Tables) -> pd.DataFrame:
    """What no cell of the grid gains over no patch, by question, on the selection half.

    `bound` holds for all cells at once, by the max-t bootstrap; `gain` is the largest estimate, at
    the cell of the row. Gains are positive where the true source is better.
    """
    found = []
    for question in QUESTIONS:
        totals = totals_of(rows[question.table], question.measure, SELECTION)
        arms = [arm for arm in totals.arms if arm.source == "true"]
        sign = -1 if question.measure.lower_is_better else 1
        gains = sign * np.stack([totals.of(arm) - totals.of(NO_PATCH) for arm in arms])
        n = int((totals.counts > 0).sum())
        row: dict[str, Any] = {
            "question": question.name,
            "measure": question.measure.name,
            "cells": len(arms),
        }
        row |= {"gain": math.nan, "bound": math.nan}
        if n > 1:
            band = simultaneous_band(gains, totals.counts, settings.resampling)
            best = int(band.estimates.argmax())
            row |= {
                **asdict(arms[best].cell),
                "gain": float(band.estimates[best]),
                "bound": float(band.high.max()),
            }
        found.append({**row, "level": settings.resampling.level, "n": n})
    return pd.DataFrame(found)
