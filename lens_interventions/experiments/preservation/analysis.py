"""From the rows of the preservation experiment to tables and verdicts."""

import numpy as np
import pandas as pd

from ..design.findings import Asked, judged
from ..engine.results import Analysis, Tables
from .correlations import copy_correlation, token_correlation
from .figures import draw
from .kept_rows import kept_templates, kept_tokens
from .settings import PreservationSettings
from .token_rows import ACROSS, NET, RARITY, RAW, SURPRISE, WITHIN, TokenRows, later, token_rows

_PREDICTORS = {
    "rarity": (RARITY, None),
    "surprise": (SURPRISE, None),
    "rarity, surprise held fixed": (RARITY, SURPRISE),
    "surprise, rarity held fixed": (SURPRISE, RARITY),
}


def analyse(settings: PreservationSettings, rows: Tables) -> Analysis:
    """The analysis of a run."""
    tokens = token_rows(rows["tokens"], rows["counts"])
    items = rows["templates"]
    kept, words = kept_tokens(tokens), kept_templates(items)
    asked = (*_asked_of_tokens(tokens, kept, settings), _asked_of_templates(words, settings))
    tables = {
        "correlations": correlations(tokens, settings),
        "by_quantile": by_quantile(tokens, settings),
        "copying": copying_correlations(items, settings),
        "token_rows": kept,
        "template_rows": words,
    }
    return Analysis(tables, judged(asked), draw)


def correlations(tokens: TokenRows, settings: PreservationSettings) -> pd.DataFrame:
    """Rank correlation of preservation with rarity and surprise, at every point.

    Only documents are resampled: for each of these many cells a crossed test would take a second.
    """
    found = []
    for kind, kept in tokens.kept.items():
        for name, (x, given) in _PREDICTORS.items():
            for point, label in enumerate(tokens.labels):
                correlation = token_correlation(
                    tokens, kept[point], x, given, settings.resampling, crossed=False
                )
                found.append(
                    {
                        "preservation": kind,
                        "correlated_with": name,
                        "point": label,
                        **correlation.interval.columns(),
                    }
                )
    return pd.DataFrame(found)


def by_quantile(tokens: TokenRows, settings: PreservationSettings) -> pd.DataFrame:
    """Mean preservation of tokens sorted into equal parts by rarity and by surprise."""
    documents, of = np.unique(tokens.document, return_inverse=True)
    found = []
    for by, values in ((RARITY, tokens.rarity), (SURPRISE, tokens.surprise)):
        edges = np.quantile(values, np.arange(1, settings.quantiles) / settings.quantiles)
        part = np.searchsorted(edges, values, side="right")
        for kind, kept in tokens.kept.items():
            usable = np.isfinite(kept[0])
            for quantile in np.unique(part):
                here = usable & (part == quantile)
                counts = np.bincount(of[here], minlength=len(documents)).astype(np.float64)
                totals = np.stack(
                    [np.bincount(of[here], row[here], minlength=len(documents)) for row in kept]
                )
                intervals = settings.resampling.intervals(totals, counts)
                for label, interval in zip(tokens.labels, intervals, strict=True):
                    found.append(
                        {
                            "sorted_by": by,
                            "preservation": kind,
                            "quantile": int(quantile) + 1,
                            # The log of a probability that rounds to 1 can come out above 0.
                            "from_nats": max(0.0, values[here].min()) if here.any() else np.nan,
                            "to_nats": float(values[here].max()) if here.any() else np.nan,
                            "point": label,
                            **interval.columns(),
                        }
                    )
    return pd.DataFrame(found)


def copying_correlations(items: pd.DataFrame, settings: PreservationSettings) -> pd.DataFrame:
    """Rank correlation, over templates, of preservation where a word stands first with copying.

    Only words are resampled.
    """
    found = []
    for comparison in (ACROSS, WITHIN):
        for label in items["label"].drop_duplicates():
            here = items[items["label"] == label]
            kept = -here["log_rank"].to_numpy(dtype=np.float64)
            correlation = copy_correlation(
                here, kept, comparison, settings.resampling, crossed=False
            )
            found.append(
                {
                    "templates": comparison,
                    "point": label,
                    **correlation.interval.columns(),
                }
            )
    return pd.DataFrame(found)


_TOKENS = (
    "{n:,} tokens of {kinds:,} kinds in {documents} documents. The {kept} of the input token, "
    "averaged over the points {first} to {last} (the upper half without the output), against its "
    "{x}: Spearman's correlation, partial, with its {given} held fixed. Documents and kinds of "
    "token are both resampled, since a few common kinds fill much of the text. "
)
_NET = (
    "The log-probability counts relative to the one that the same points give the same token at a "
    "position of another document, where it is not the input: otherwise whatever makes the lens "
    "favour common tokens everywhere would pass for preservation, or hide it. "
)
_KEPT = {RAW: "rank (log of one plus it)", NET: "log-probability"}
_POSITIVE = "Positive: the larger the {x}, the better preserved."
_X = {RARITY: "unigram surprisal", SURPRISE: "surprisal in context"}
_QUESTIONS = (
    ("Does rarity help a token to keep a high rank in later layers, as the post saw it?", RAW),
    ("Does rarity help a token to be preserved, beyond how likely it seems anywhere?", NET),
    (
        "Does being unexpected help a token to be preserved, beyond how likely it seems anywhere?",
        NET,
    ),
)
_TEMPLATE = (
    "{n} templates of {words} words in {sentences} sentences. The rank of the word's tokens at its "
    "first occurrence (as above) against the log-probability of the whole word where it is due "
    "again. Spearman's correlation after the means of each word and of each sentence are taken "
    "out, since some words and sentences are easier in both respects. Words and sentences are "
    "resampled. Positive: better preserved, better copied."
)


def _asked_of_tokens(
    tokens: TokenRows, rows: pd.DataFrame, settings: PreservationSettings
) -> list[Asked]:
    asked = []
    points = later(tokens.labels)
    for (question, kind), (x, given) in zip(
        _QUESTIONS, ((RARITY, SURPRISE), (RARITY, SURPRISE), (SURPRISE, RARITY)), strict=True
    ):
        kept = rows["log_prob" if kind == NET else "rank"].to_numpy()
        correlation = token_correlation(tokens, kept, x, given, settings.resampling, crossed=True)
        usable = np.isfinite(kept)
        method = (_TOKENS + (_NET if kind == NET else "") + _POSITIVE).format(
            kept=_KEPT[kind],
            n=int(usable.sum()),
            kinds=len(np.unique(tokens.token[usable])),
            documents=len(np.unique(tokens.document[usable])),
            first=tokens.labels[points[0]],
            last=tokens.labels[points[-1]],
            x=_X[x],
            given=_X[given],
        )
        asked.append(
            Asked(
                question,
                correlation,
                method,
                "correlation",
                settings.smallest_correlation,
                units="rank correlation",
            )
        )
    return asked


def _asked_of_templates(rows: pd.DataFrame, settings: PreservationSettings) -> Asked:
    correlation = copy_correlation(
        rows, rows["rank"].to_numpy(), WITHIN, settings.resampling, crossed=True
    )
    question = "Does better preservation where a word stands first help to copy it later?"
    method = _TEMPLATE.format(
        n=len(rows),
        words=rows["said"].nunique(),
        sentences=(rows["group"] + " " + rows["frame"]).nunique(),
    )
    return Asked(
        question,
        correlation,
        method,
        "copying",
        settings.smallest_correlation,
        units="rank correlation",
    )
