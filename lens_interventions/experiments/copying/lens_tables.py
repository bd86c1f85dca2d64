"""Where the lens has the word that is due, under three arms."""

import pandas as pd

from ..design.conditions import NO_PATCH, Arm
from ..design.contrasts import contrast
from ..design.sequences import REPORT
from ..design.totals import Measure, tagged, totals_of
from ..engine.results import Tables
from .choice import Choice
from .settings import CopyingSettings

_KINDS = ("all", "common", "rare", "near", "far")


def lens_table(rows: Tables, choice: Choice) -> pd.DataFrame:
    """Share of templates in which each residual point has the word's first token at the top."""
    found = []
    last = rows["lens"]["category"].drop_duplicates().str.extract(r"\bpoint-(\d+)$", expand=False)
    points = sorted(set(last.dropna().astype(int).tolist()))
    for kind in _KINDS:
        for point in points:
            tags = {f"point-{point}"} | ({kind} if kind != "all" else set())
            if tagged(rows["lens"], tags).empty:
                continue
            totals = totals_of(rows["lens"], Measure("lens_top", frozenset(tags)), REPORT)
            for arm in totals.arms:
                found.append(
                    {
                        "words": kind,
                        "point": point,
                        "source": arm.source,
                        "role": "best control" if arm == choice.control else arm.source,
                        "share": totals.mean(arm),
                        "count": int(totals.counts.sum()),
                    }
                )
    return pd.DataFrame(found)


def lens_first_table(settings: CopyingSettings, rows: Tables, choice: Choice) -> pd.DataFrame:
    """The first residual point that has the word at the top; one past the last where none has.

    `mean` is that of the source, `unpatched` that without a patch.
    """
    found = []
    true = Arm.at(choice.cell)
    for kind in _KINDS:
        tags = frozenset() if kind == "all" else frozenset({kind})
        if tagged(rows["lens"], tags).empty:
            continue
        totals = totals_of(rows["lens"], Measure("lens_first", tags), REPORT)
        for reference in (NO_PATCH, choice.control):
            found.append(
                {
                    "words": kind,
                    "source": true.source,
                    "minus": reference.source,
                    "mean": totals.mean(true),
                    "unpatched": totals.mean(NO_PATCH),
                    **contrast(totals, true, reference, settings.resampling).columns(),
                }
            )
    return pd.DataFrame(found)
