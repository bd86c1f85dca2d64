"""From the rows of the last_word experiment to tables and verdicts."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ...measures.intervals import Interval, share_difference_interval, share_interval
from ..design.contrasts import Contrast, Resampling, crossed_contrast
from ..design.documents import middle
from ..design.findings import Asked, judged
from ..engine.results import Analysis, Finding, Tables
from .figures import draw
from .measurements import ASKED, FIXED, OTHER, OWN, PLAIN
from .settings import LastWordSettings

WHOLE = "whole sentence"
MIDDLE, OUTPUT = "middle third of the residual points", "output"

# Requests share these, so each of the three is a sample of its own.
_SHARED = ["word", "topic", "phrasing"]
_RESAMPLED = "Words, topics and phrasings of the request are resampled."

_ALONG = "Does asking for a last word help the word all along the sentence before it, at the {}?"
_LAST = "Does asking for a last word help the sentence to end in it?"


def analyse(settings: LastWordSettings, rows: Tables) -> Analysis:
    """The analysis of a run.

    Raises `ValueError` if all sentences of a kind are too short to be divided into parts.
    """
    along = rows["along"]
    if short := {OWN, FIXED} - set(along["sentence"]):
        raise ValueError(
            f"no sentence of {' or '.join(sorted(short))} has {settings.parts} tokens before the "
            "word: ask for fewer parts, or use a model that answers in sentences"
        )
    tables = {
        "influence": influence_table(along, settings),
        "ends": ends_table(along, settings),
        "sources": source_table(rows["sources"], settings),
        "sentences": along.drop_duplicates([*_SHARED, "request"])[
            [*_SHARED, "request", "said", "ends"]
        ],
        "along_rows": along,
        "sources_rows": rows["sources"],
    }
    return Analysis(tables, _findings(along, settings), draw)


def influence_table(along: pd.DataFrame, settings: LastWordSettings) -> pd.DataFrame:
    """The request with the word minus one without: log-probability and log-rank of the word.

    For each sentence, other request, point and part of the sentence, means over requests with
    intervals over them.
    """
    found = []
    for sentence in (OWN, FIXED):
        for minus in (OTHER, PLAIN):
            for column in ("log_prob", "log_rank"):
                difference: Any = _difference(along, sentence, minus, column)
                for point, label in enumerate(_labels(along)):
                    for name, parts in _parts(settings).items():
                        values = difference.xs(point, level="point", axis=1)[parts].mean(axis=1)
                        interval = _contrast(values, settings.resampling).interval
                        found.append(
                            {
                                "sentence": sentence,
                                "minus": minus,
                                "measure": column,
                                "point": label,
                                "part": name,
                                **interval.columns(),
                            }
                        )
    return pd.DataFrame(found)


def ends_table(along: pd.DataFrame, settings: LastWordSettings) -> pd.DataFrame:
    """The share of sentences that end in the word, by request."""
    found = []
    for request in (ASKED, OTHER, PLAIN):
        share = _share(_ends(along, request), settings.resampling)
        found.append({"request": request, **share.columns()})
    return pd.DataFrame(found)


def source_table(sources: pd.DataFrame, settings: LastWordSettings) -> pd.DataFrame:
    """What the word loses along the fixed sentence, by layer and part that are exchanged, nats."""
    found = []
    groups: Any = sources.groupby(["where", "layer"], sort=False)
    for (where, layer), part in groups:
        lost = part.set_index(_SHARED)["lost"]
        interval = _contrast(lost, settings.resampling).interval
        whole = float(part["whole"].mean())
        found.append({"where": where, "layer": layer, **interval.columns(), "whole": whole})
    return pd.DataFrame(found, columns=["where", "layer", "estimate", "low", "high", "n", "whole"])


def _findings(along: pd.DataFrame, settings: LastWordSettings) -> tuple[Finding, ...]:
    resampling, labels = settings.resampling, _labels(along)
    spans = {MIDDLE: middle(labels).tolist(), OUTPUT: [len(labels) - 1]}
    asked_of: list[Asked] = []
    for name, points in spans.items():
        contrasts = {
            (sentence, minus): _contrast(
                _difference(along, sentence, minus, "log_prob")[points].mean(axis=1),
                resampling,
            )
            for sentence in (OWN, FIXED)
            for minus in (OTHER, PLAIN)
        }
        each = "; ".join(
            f"{sentence}, minus the request {minus}: {contrast.interval}"
            for (sentence, minus), contrast in contrasts.items()
        )
        method = (
            "Log-probability of the word by the raw lens, mean over all tokens of the sentence "
            f"before the word, {name}, when it is asked for minus when it is not. {each}. The "
            f"verdict is on the first. {_RESAMPLED}"
        )
        question = _ALONG.format(name)
        influence = contrasts[OWN, OTHER]
        asked_of.append(
            Asked(question, influence, method, "influence", settings.smallest_nats, units="nats")
        )
    asked, plain = _ends(along, ASKED), _ends(along, PLAIN)
    more_ends = _more_ends(asked, plain, resampling)
    method = (
        f"Greedy sentences that end in the word: {_share(asked, resampling)} when it is asked for, "
        f"{plain.mean():.2f} on the same requests without a word. {_RESAMPLED}"
    )
    asked_of.append(
        Asked(_LAST, more_ends, method, "ends", settings.smallest_share, units="of sentences")
    )
    return judged(asked_of)


def _difference(along: pd.DataFrame, sentence: str, minus: str, column: str) -> pd.DataFrame:
    """The request with the word minus another: a row for each item, columns point and part."""
    here = along[along["sentence"] == sentence]
    asked, other = (
        here[here["request"] == request].pivot_table(
            index=_SHARED, columns=["point", "part"], values=column
        )
        for request in (ASKED, minus)
    )
    return asked - other


def _contrast(values: pd.Series, resampling: Resampling) -> Contrast:
    """The mean over words, topics and phrasings, which are all resampled."""
    index: Any = values.index
    cells = values.reindex(pd.MultiIndex.from_product(index.levels)).to_numpy(np.float64)
    # Each word and topic meet in one phrasing alone, so most cells are empty.
    cells = cells.reshape(index.levshape)
    counts = np.isfinite(cells).astype(np.float64)
    return crossed_contrast(np.nan_to_num(cells), counts, resampling)


def _share(ends: pd.Series, resampling: Resampling) -> Interval:
    """The share of sentences that end in the word.

    Words, topics and phrasings are resampled. The interval of sentences that are independent is
    taken where that is wider, as where all end alike. No interval leaves 0 to 1, which that of t
    may do with three phrasings.
    """
    alone = share_interval(int(ends.sum()), len(ends), level=resampling.level)
    found = _wider(_contrast(ends.astype(float), resampling).interval, alone)
    low, high = np.clip([found.low, found.high], 0, 1).tolist()
    return replace(found, low=low, high=high)


def _more_ends(asked: pd.Series, plain: pd.Series, resampling: Resampling) -> Contrast:
    """The share that ends in the word minus that without a word; intervals as in `_share`."""
    crossed = _contrast(asked.astype(float) - plain.astype(float), resampling)
    alone = share_difference_interval(
        asked.to_numpy(bool), plain.to_numpy(bool), level=resampling.level
    )
    return replace(crossed, interval=_wider(crossed.interval, alone))


def _wider(crossed: Interval, alone: Interval) -> Interval:
    """The wider of two; `crossed` if it has no ends, as too few were resampled to know."""
    return alone if alone.high - alone.low > crossed.high - crossed.low else crossed


def _parts(settings: LastWordSettings) -> dict[str, list[int]]:
    every = list(range(settings.parts))
    return {WHOLE: every, **{f"part {part + 1} of {settings.parts}": [part] for part in every}}


def _labels(along: pd.DataFrame) -> list[str]:
    return list(along.sort_values("point")["label"].drop_duplicates())


def _ends(along: pd.DataFrame, request: str) -> pd.Series:
    here = along[along["request"] == request].drop_duplicates(_SHARED)
    return here.set_index(_SHARED)["ends"].sort_index()
