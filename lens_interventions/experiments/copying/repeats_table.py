"""The share of all loss that is on repeats of surprising tokens: the most that is to be gained."""

import pandas as pd

from ..design.conditions import NO_PATCH
from ..design.sequences import REPORT
from ..design.totals import Measure, totals_of
from ..engine.results import Tables
from .questions import REPEATS
from .settings import CopyingSettings

_HOW_FAR = ("repeat", "repeat-32", "repeat-128", "repeat-far")


def repeats_table(settings: CopyingSettings, rows: Tables) -> pd.DataFrame:
    """Share of the tokens and of the unpatched loss that such repeats have, by distance."""
    parts = {
        tag: totals_of(rows[REPEATS], Measure("loss", frozenset({tag})), REPORT)
        for tag in (*_HOW_FAR, "repeat-none")
    }
    losses = {tag: totals.of(NO_PATCH) for tag, totals in parts.items()}
    all_loss = losses["repeat"] + losses["repeat-none"]
    all_tokens = parts["repeat"].counts + parts["repeat-none"].counts
    found = []
    for tag in _HOW_FAR:
        share = settings.resampling.interval(losses[tag], all_loss)
        found.append(
            {
                "repeats": tag,
                "tokens": int(parts[tag].counts.sum()),
                "of_tokens": float(parts[tag].counts.sum() / all_tokens.sum()),
                "unpatched": parts[tag].mean(NO_PATCH),
                "of_loss": share.estimate,
                "low": share.low,
                "high": share.high,
                "n": share.n,
            }
        )
    return pd.DataFrame(found)
