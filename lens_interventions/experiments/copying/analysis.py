"""From the rows of the copying experiment to tables and verdicts."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import torch

from ...measures.behaviour import bin_by
from ...measures.verdicts import verdict
from ..design.conditions import NO_PATCH, Arm, source_arms
from ..design.contrasts import (
    Measure,
    contrast,
    effect_over_grid,
    row_interval,
    tagged,
    totals_of,
    with_holm,
)
from ..design.sequences import REPORT, SELECTION
from ..engine.results import Analysis, Finding, Tables
from .figures import draw
from .settings import CopyingSettings
from .stages import QUESTIONS, Choice, Question, choices

BEST_CONTROL = "best control"


def analyse(settings: CopyingSettings, rows: Tables) -> Analysis:
    """Tables, one verdict per question, and figures."""
    chosen = choices(settings, rows)
    contrasts = _contrasts(settings, rows, chosen)
    tables = {
        "contrasts": contrasts,
        "categories": _categories(settings, rows, chosen),
        "grid": _grid(settings, rows),
        "conditions": _conditions(rows, chosen),
        "lens": _lens(rows, chosen["templates"]),
        "lens_first": _lens_first(settings, rows, chosen["templates"]),
    }
    verdicts = tuple(_finding(settings, question, contrasts, rows) for question in QUESTIONS)
    return Analysis(tables, verdicts, draw)


def _contrasts(
    settings: CopyingSettings, rows: Tables, chosen: Mapping[str, Choice]
) -> pd.DataFrame:
    """The report half: every source minus no patch, and the true one minus the best control.

    `p_holm` is corrected over all comparisons of the same question.
    """
    found = []
    for question in QUESTIONS:
        choice = chosen[question.name]
        for measure in _measures_of(question):
            totals = totals_of(rows[question.table], measure, REPORT)
            true = Arm.at(choice.cell)
            pairs = [(arm, NO_PATCH) for arm in source_arms(choice.cell)]
            compared = [
                contrast(totals, arm, reference, settings.resampling).columns()
                | {"source": arm.source, "minus": _name(reference, choice)}
                for arm, reference in [(true, choice.control), *pairs]
            ]
            for row in with_holm(compared):
                found.append(
                    {
                        "question": question.name,
                        "measure": measure.name,
                        "lower_is_better": measure.lower_is_better,
                        **_cell_columns(choice),
                        **row,
                    }
                )
    return pd.DataFrame(found)


def _categories(
    settings: CopyingSettings, rows: Tables, chosen: Mapping[str, Choice]
) -> pd.DataFrame:
    """The true source against no patch and against the best control, on each kind of material.

    `p_holm` is corrected over the categories of one division and comparison.
    """
    found = []
    for name, question, tags in _divisions(settings):
        choice = chosen[question.name]
        true = Arm.at(choice.cell)
        for arm, reference in [
            (true, NO_PATCH),
            (choice.control, NO_PATCH),
            (true, choice.control),
        ]:
            compared = []
            for label, wanted in tags.items():
                measure = replace(question.measure, tags=frozenset(wanted))
                if tagged(rows[question.table], wanted).query("half == @REPORT").empty:
                    continue
                totals = totals_of(rows[question.table], measure, REPORT)
                if totals.counts.sum() == 0:
                    continue
                compared.append(
                    contrast(totals, arm, reference, settings.resampling).columns()
                    | {
                        "category": label,
                        "count": int(totals.counts.sum()),
                        "unpatched": totals.mean(NO_PATCH),
                    }
                )
            for row in with_holm(compared):
                found.append(
                    {
                        "division": name,
                        "question": question.name,
                        "measure": question.measure.name,
                        "source": arm.source,
                        "minus": _name(reference, choice),
                        **row,
                    }
                )
    return pd.DataFrame(found)


def _divisions(
    settings: CopyingSettings,
) -> list[tuple[str, Question, dict[str, set[str]]]]:
    """Name, question, and the tags of each category."""
    by_name = {question.name: question for question in QUESTIONS}
    texts = [source.replace(" ", "_") for source in settings.texts]
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
        ("kind of word", by_name["templates"], kinds | rare),
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
        arms = [NO_PATCH, *source_arms(choice.cell)]
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


def _lens(rows: Tables, choice: Choice) -> pd.DataFrame:
    """Share of templates in which each residual point has the word's first token at the top."""
    found = []
    points = sorted(
        {
            int(tag[6:])
            for c in rows["lens"]["category"].unique()
            for tag in c.split()[-1:]
            if tag.startswith("point-")
        }
    )
    for kind in ("all", "common", "rare", "near", "far"):
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


def _lens_first(settings: CopyingSettings, rows: Tables, choice: Choice) -> pd.DataFrame:
    """The first residual point that has the word at the top; one past the last where none has.

    `mean` is that of the source, `unpatched` that without a patch.
    """
    found = []
    true = Arm.at(choice.cell)
    for kind in ("all", "common", "rare", "near", "far"):
        tags = frozenset() if kind == "all" else frozenset({kind})
        if tagged(rows["lens"], tags).empty:
            continue
        totals = totals_of(rows["lens"], Measure("lens_first", tags), REPORT)
        for arm, reference in [(true, NO_PATCH), (true, choice.control)]:
            found.append(
                {
                    "words": kind,
                    "source": arm.source,
                    "minus": _name(reference, choice),
                    "mean": totals.mean(arm),
                    "unpatched": totals.mean(NO_PATCH),
                    **contrast(totals, arm, reference, settings.resampling).columns(),
                }
            )
    return pd.DataFrame(found)


def _finding(
    settings: CopyingSettings, question: Question, contrasts: pd.DataFrame, rows: Tables
) -> Finding:
    of_question = contrasts[
        (contrasts["question"] == question.name) & (contrasts["measure"] == question.measure.name)
    ].to_dict("records")
    headline = of_question[0]
    plain = next(r for r in of_question if r["source"] == "true" and r["minus"] == "none")
    totals = totals_of(rows[question.table], question.measure, REPORT)
    judged = verdict(
        row_interval(headline),
        smallest_effect=(
            settings.smallest_text if question.table == "text" else settings.smallest_copy
        ),
        lower_is_better=question.measure.lower_is_better,
        units="nats",
    )
    control = headline["minus"].removeprefix(f"{BEST_CONTROL}: ")
    selected = "" if question.chosen_by == question.name else f" for {question.chosen_by}"
    method = (
        f"{question.material[0].upper()}{question.material[1:]}; "
        f"{int(totals.counts.sum())} predictions in {int((totals.counts > 0).sum())} "
        f"clusters of the report half, which are resampled. Cell chosen{selected} on the other "
        f"half: layer {headline['layer']}, {headline['mode']} {headline['strength']:g}; best "
        f"control there: {control}. True source minus no patch: {row_interval(plain)} "
        f"(p = {plain['p_value']:.2g}); minus best control p = {headline['p_value']:.2g}."
    )
    return Finding(question.text, judged, method, "sources")


def _measures_of(question: Question) -> list[Measure]:
    """The measure that the verdict is about, then others on the same rows."""
    more = {
        "induction": [Measure("top1", lower_is_better=False)],
        "templates": [Measure("top1", lower_is_better=False), Measure("log_rank")],
    }
    return [question.measure, *more.get(question.name, [])]


def _cell_columns(choice: Choice) -> dict[str, Any]:
    cell = choice.cell
    return {"layer": cell.layer, "strength": cell.strength, "mode": cell.mode}


def _name(reference: Arm, choice: Choice) -> str:
    return f"{BEST_CONTROL}: {choice.control.source}" if reference == choice.control else "none"
