"""The most that any cell of the grid could gain."""

import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from ..design.conditions import NO_PATCH
from ..design.contrasts import Resampling, crossed_contrast
from ..design.sequences import SELECTION
from ..design.simultaneous import simultaneous_band
from ..engine.results import Tables
from .questions import QUESTIONS
from .settings import CopyingSettings


def bounds(settings: CopyingSettings, rows: Tables) -> pd.DataFrame:
    """What no cell of the grid gains over no patch, by question, on the selection half.

    `bound` holds for all cells at once: by the max-t bootstrap, and where words are crossed with
    frames by Bonferroni's correction. `gain` is the largest estimate, at the cell of the row. Gains
    are positive where the true source is better.
    """
    found = []
    for question in QUESTIONS:
        totals = question.totals(rows, SELECTION)
        arms = totals.true_arms
        sign = -1 if question.measure.lower_is_better else 1
        gains = sign * np.stack([totals.difference(arm, NO_PATCH) for arm in arms])
        n = totals.n_clusters
        row: dict[str, Any] = {
            "question": question.name,
            "measure": question.measure.name,
            "cells": len(arms),
        }
        row |= {"gain": math.nan, "bound": math.nan}
        if n > 1:
            estimates, high = together(gains, totals.cell_counts, settings.resampling)
            best = int(estimates.argmax())
            row |= {
                **asdict(arms[best].cell),
                "gain": float(estimates[best]),
                "bound": float(high.max()),
            }
        found.append({**row, "level": settings.resampling.level, "n": n})
    return pd.DataFrame(found)


def together(
    gains: Float[np.ndarray, "cell cluster crossed"],
    counts: Float[np.ndarray, "cluster crossed"],
    resampling: Resampling,
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """The mean gains of all cells, and upper ends that hold for all of them together."""
    if counts.shape[-1] == 1:
        band = simultaneous_band(gains[..., 0], counts[:, 0], resampling)
        return band.estimates, band.high
    corrected = replace(resampling, level=1 - (1 - resampling.level) / len(gains))
    found = [crossed_contrast(gain, counts, corrected).interval for gain in gains]
    return (
        np.array([interval.estimate for interval in found]),
        np.array([interval.high for interval in found]),
    )
