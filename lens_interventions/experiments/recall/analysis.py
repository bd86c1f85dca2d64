"""From the rows of the recall experiment to tables and verdicts."""

import itertools

import numpy as np
import pandas as pd
from jaxtyping import Float

from ...fitting.input_reading import INPUT, MEASURES
from ...measures.pairwise import pairwise_values
from ..design.contrasts import mean_contrast
from ..design.documents import middle
from ..design.findings import Asked, judged
from ..engine.results import Analysis, Tables
from .figures import draw
from .settings import RecallSettings
from .stages import IMPORTANCE, PARTS

ALL = "all"
"""The part of the rows of `recovered` that counts every token."""


def analyse(settings: RecallSettings, rows: Tables) -> Analysis:
    """The analysis of a run."""
    measured = rows["recall"]
    tables = {
        "recovered": _means(measured[measured["measure"] == "recovered"], settings),
        "read": _means(measured[measured["measure"].isin(MEASURES)], settings),
        "importance": measured.loc[
            measured["measure"] == IMPORTANCE, ["basis", "part", "total"]
        ].reset_index(drop=True),
        "rows": measured,
    }
    asked = (*_asked_of_recall(measured, settings), _asked_of_place(measured, settings))
    return Analysis(tables, judged(asked), draw)


def _means(rows: pd.DataFrame, settings: RecallSettings) -> pd.DataFrame:
    """Means with intervals, by measure, basis, part and point."""
    found = []
    for key, here in rows.groupby(["measure", "basis", "part", "point"], sort=False):
        if here["count"].sum() > 0:
            names = dict(zip(("measure", "basis", "part", "point"), key, strict=True))
            totals, counts = (here[name].to_numpy(dtype=np.float64) for name in ("total", "count"))
            if names["measure"] == INPUT:
                totals = pairwise_values(totals)
            interval = settings.resampling.interval(totals, counts)
            found.append({**names, **interval.columns()})
    return pd.DataFrame(found)


_RECALLED = (
    "The share of tokens that the probe's map at a point ranks first among all tokens, at {later} "
    "minus that at {earlier}, {why} on half of the documents. {n} other documents, {tokens} "
    "tokens; there {before:.1%} before and {after:.1%} after. {at_input:.1%} are recovered at the "
    "input."
)


def _asked_of_recall(rows: pd.DataFrame, settings: RecallSettings) -> list[Asked]:
    points, hits, counts = _recovered(rows)
    choosing = np.arange(hits.shape[1]) % 2 == 0
    share = hits[:, choosing].sum(1) / counts[choosing].sum()
    final = len(points) - 1
    least = int(share[:final].argmin())
    rise = max(
        itertools.combinations(range(len(points)), 2), key=lambda ij: share[ij[1]] - share[ij[0]]
    )
    questions = (
        (
            "Do the last blocks help to recall the input?",
            (least, final),
            "the point where it is least, chosen",
        ),
        (
            "Does any stretch of blocks help to recall the input?",
            rise,
            "between which it rises most, chosen",
        ),
    )
    reported, of = hits[:, ~choosing], counts[~choosing]
    asked = []
    for question, (earlier, later), why in questions:
        change = mean_contrast(reported[later] - reported[earlier], settings.resampling, of)
        method = _RECALLED.format(
            earlier=points[earlier],
            later=points[later],
            why=why,
            n=change.interval.n,
            tokens=int(of.sum()),
            before=reported[earlier].sum() / of.sum(),
            after=reported[later].sum() / of.sum(),
            at_input=reported[0].sum() / of.sum(),
        )
        asked.append(
            Asked(
                question,
                change,
                method,
                "recovered",
                settings.smallest_share,
                units="of tokens",
            )
        )
    return asked


def _recovered(
    rows: pd.DataFrame,
) -> tuple[tuple[str, ...], Float[np.ndarray, "point document"], Float[np.ndarray, " document"]]:
    """The points, and how many tokens come first at each in each document, of how many."""
    here = rows[(rows["measure"] == "recovered") & (rows["part"] == ALL)]
    points = tuple(dict.fromkeys(here["point"]))
    hits, counts = (
        here.pivot(index="point", columns="document", values=name)
        .loc[list(points), list(dict.fromkeys(here["document"]))]
        .to_numpy(dtype=np.float64)
        for name in ("total", "count")
    )
    return points, hits, counts[0]


_PLACE = (
    "The share of the less important half of the components ({basis}), which hold {importance:.0%} "
    "of the table, in the squared covariance of the stream with the probe's estimate of the "
    "input, minus its share of the stream's variance, which random directions of the stream's "
    "covariance have. {n} documents, which are resampled; each is compared with all others, which "
    "the interval knows. Points {first} to {last}, the middle third. {shares}."
)
_SHARES = (
    "{basis}: {input:.1%} of the input, {estimate:.1%} of what is read, {stream:.1%} of the stream"
)


def _asked_of_place(rows: pd.DataFrame, settings: RecallSettings) -> Asked:
    kind = settings.bases[0]
    shares, points = _middle_shares(rows, kind)
    importance = rows[(rows["measure"] == IMPORTANCE) & (rows["part"] == PARTS[1])]
    told = []
    for basis in settings.bases:
        means = {name: values.mean() for name, values in _middle_shares(rows, basis)[0].items()}
        told.append(_SHARES.format(basis=basis, **means))
    more = mean_contrast(pairwise_values(shares[INPUT]) - shares["stream"], settings.resampling)
    method = _PLACE.format(
        basis=kind,
        importance=importance.loc[importance["basis"] == kind, "total"].item(),
        n=more.interval.n,
        first=points[0],
        last=points[-1],
        shares="; ".join(told),
    )
    return Asked(
        "Does mattering little to the output help a direction to keep the input?",
        more,
        method,
        "read",
        settings.smallest_share,
        units="of the variance",
    )


def _middle_shares(
    rows: pd.DataFrame, kind: str
) -> tuple[dict[str, Float[np.ndarray, " document"]], list[str]]:
    """The shares of the less important half, averaged over the middle third of the points."""
    here = rows[(rows["basis"] == kind) & (rows["part"] == PARTS[1])]
    points = list(dict.fromkeys(here.loc[here["measure"].isin(MEASURES), "point"]))
    chosen = [points[i] for i in middle(points)]
    inside = here[here["point"].isin(chosen)]
    means = {
        measure: inside[inside["measure"] == measure]
        .groupby("document", sort=False)["total"]
        .mean()
        .to_numpy(dtype=np.float64)
        for measure in MEASURES
    }
    return means, chosen
