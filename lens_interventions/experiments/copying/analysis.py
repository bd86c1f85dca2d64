"""From the rows of the copying experiment to tables and verdicts."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import torch

from ...drawing.labels import capital, counted
from ...measures.behaviour import bin_by
from ..design.comparisons import (
    Comparison,
    question_rows,
    said_of,
    with_holm_over_categories,
    with_holm_over_questions,
)
from ..design.conditions import NO_PATCH, control_arms, source_arms
from ..design.contrasts import contrast_rows
from ..design.findings import Compared, judged_comparisons
from ..design.grid_cells import effect_over_grid
from ..design.material import text_tag
from ..design.sequences import REPORT, SELECTION
from ..design.totals import Measure, rows_with_tables, totals_by_category, totals_of
from ..engine.results import Analysis, Tables
from .bounds import bounds
from .choice import Choice, choices
from .comparison import compared, question_columns, writes_table
from .figures import draw
from .forms_table import forms_table
from .lens_tables import lens_first_table, lens_table
from .questions import QUESTIONS, TABLES, CopyingQuestion
from .repeats_table import repeats_table
from .settings import CopyingSettings
from .slopes_table import slopes_table


def analyse(settings: CopyingSettings, rows: Tables) -> Analysis:
    """Tables, one verdict per question, and figures."""
    chosen = choices(settings, rows)
    comparisons = {
        question.name: compared(
            settings,
            question.totals(rows, REPORT),
            chosen[question.name],
            question.totals(rows, SELECTION),
        )
        for question in QUESTIONS
    }
    limits = bounds(settings, rows)
    words = chosen["rare words"]
    tables = {
        "contrasts": _contrasts(settings, rows, chosen, comparisons),
        "writes": writes_table(settings, rows, chosen),
        "bounds": limits,
        "forms": forms_table(settings, rows, chosen),
        "repeats": repeats_table(settings, rows),
        "categories": _categories(settings, rows, chosen),
        "grid": _grid(settings, rows),
        "conditions": _conditions(rows, chosen),
        "lens": lens_table(rows, words),
        "lens_first": lens_first_table(settings, rows, words),
        "slopes": slopes_table(rows),
        "rows": rows_with_tables({table: rows[table] for table in TABLES}),
    }
    asked = [
        Compared(
            question.text,
            comparisons[question.name],
            _method(rows, question, chosen[question.name], comparisons[question.name], limits),
            "sources",
            _margin(settings, question),
            "nats",
        )
        for question in QUESTIONS
    ]
    return Analysis(tables, judged_comparisons(asked), draw)


def _contrasts(
    settings: CopyingSettings,
    rows: Tables,
    chosen: Mapping[str, Choice],
    comparisons: Mapping[str, Comparison],
) -> pd.DataFrame:
    """The report half: the true source minus all its references, each of them, and controls alone.

    `p_holm` is corrected over the questions in the joint rows, and over the comparisons of the same
    question in the others.
    """
    found = []
    for question in QUESTIONS:
        choice = chosen[question.name]
        for measure in _measures_of(question):
            totals = totals_of(rows[question.table], measure, REPORT)
            comparison = (
                comparisons[question.name]
                if measure == question.measure
                else compared(settings, totals, choice)
            )
            arms = [choice.tempered, *control_arms(choice.cell)]
            alone = contrast_rows(totals, [(arm, NO_PATCH) for arm in arms], settings.resampling)
            common = question_columns(question, measure, choice.cell)
            found += [{**common, **row} for row in question_rows(comparison, alone)]
    return with_holm_over_questions(pd.DataFrame(found))


def _categories(
    settings: CopyingSettings, rows: Tables, chosen: Mapping[str, Choice]
) -> pd.DataFrame:
    """The true source against all its references and each of them, on each kind of material.

    `p_holm` is corrected over the categories of one division and comparison.
    """
    found: list[dict[str, Any]] = []
    for name, question, tags in _divisions(settings):
        part = rows[question.table]
        for label, measure, totals in totals_by_category(part, question.measure, tags, REPORT):
            common = {
                "division": name,
                "question": question.name,
                "measure": measure.name,
                "category": label,
                "count": int(totals.counts.sum()),
                "unpatched": totals.mean(NO_PATCH),
            }
            comparison = compared(settings, totals, chosen[question.name])
            found += [{**common, **row} for row in comparison.rows()]
    return pd.DataFrame(with_holm_over_categories(found))


def _divisions(
    settings: CopyingSettings,
) -> list[tuple[str, CopyingQuestion, dict[str, set[str]]]]:
    """Name, question, and the tags of each category."""
    by_name = {question.name: question for question in QUESTIONS}
    texts = [text_tag(source) for source in settings.texts]
    labels = bin_by(torch.zeros(1, 1), settings.surprisal_edges).labels
    bins = {label: {f"bin-{index}"} for index, label in enumerate(labels)}
    when = {
        "right after a surprise": {"surprise-now"},
        f"a surprise in the last {settings.recent}, not the last token": {"surprise-recent"},
        f"no surprise in the last {settings.recent}": {"surprise-none"},
    }
    copyable = {f"{kind}, {text}": {kind, text} for kind in ("copyable", "other") for text in texts}
    kinds = {tag: {tag} for tag in ("common", "rare", "near", "far", "single", "several")}
    rare = {f"rare, {pieces}": {"rare", pieces} for pieces in ("single", "several")}
    return [
        ("surprisal of the token before", by_name["surprise"], bins),
        ("last surprise", by_name["surprise"], when),
        ("copyable and other tokens", by_name["copyable"], copyable),
        ("kind of word", by_name["rare words"], kinds | rare),
    ]


def _grid(settings: CopyingSettings, rows: Tables) -> pd.DataFrame:
    """The effect over depth: true source minus no patch on the selection half."""
    found = []
    for question in QUESTIONS:
        for measure in _measures_of(question):
            part = rows[question.table].query("measure == @measure.name and half == @SELECTION")
            if part.empty:  # ranks of templates are read on the report half alone
                continue
            totals = totals_of(part, measure, SELECTION)
            table = effect_over_grid(totals, settings.resampling)
            found.append(table.assign(question=question.name, measure=measure.name))
    return pd.concat(found, ignore_index=True)


def _conditions(rows: Tables, chosen: Mapping[str, Choice]) -> pd.DataFrame:
    """The mean of every measure under every source at the chosen cells, on the report half."""
    found = []
    for question in QUESTIONS:
        choice = chosen[question.name]
        arms = [NO_PATCH, choice.tempered, *source_arms(choice.cell)]
        for measure in _measures_of(question):
            totals = totals_of(rows[question.table], measure, REPORT)
            for arm in arms:
                found.append(
                    {
                        "question": question.name,
                        "measure": measure.name,
                        **arm.columns(),
                        "mean": totals.mean(arm),
                        "count": int(totals.counts.sum()),
                    }
                )
    return pd.DataFrame(found)


def _method(
    rows: Tables,
    question: CopyingQuestion,
    choice: Choice,
    comparison: Comparison,
    limits: pd.DataFrame,
) -> str:
    totals = question.totals(rows, REPORT)
    selected = f" for {question.chosen_by}" if question.chosen_by else ""
    (limit,) = limits[limits["question"] == question.name].to_dict("records")
    said = (
        f"{capital(question.material)}; "
        f"{counted(int(totals.counts.sum()), 'prediction')} in "
        f"{counted(totals.n_clusters, 'cluster')} of the report part; clusters are resampled. "
        f"Cell chosen{selected} on the selection part: {choice.cell}. "
        f"{said_of(comparison, 'nats')}"
    )
    if math.isfinite(limit["bound"]):
        said += (
            f" No cell of the grid gains more than {limit['bound']:.2g} nats over no patch (all "
            f"{limit['cells']} cells at once, on the selection part)."
        )
    return said


def _margin(settings: CopyingSettings, question: CopyingQuestion) -> float:
    return settings.smallest_text if question.table == "text" else settings.smallest_copy


def _measures_of(question: CopyingQuestion) -> list[Measure]:
    """The measure that the verdict is about, then others on the same rows."""
    more = {
        "induction": [Measure("top1", lower_is_better=False)],
        "templates": [Measure("top1", lower_is_better=False), Measure("log_rank")],
    }
    tags = question.measure.tags
    others = more.get(question.table, [])
    return [question.measure, *(replace(measure, tags=tags) for measure in others)]
