"""From the rows of the experiment with learned writes to tables and verdicts.

Differences are paired over sequences and seeds: a seed's difference on a sequence is that of the
true source and the control, both trained with this seed. Intervals and tests of the questions
resample seeds and sequences, and the sentences that words stand in, since all are samples
(`measures.crossed`); the tables of categories and sweeps are means over seeds and resample
sequences alone. The table "seeds" shows each seed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from ...drawing.labels import capital, counted
from ...measures.behaviour import bin_by
from ..design.comparisons import (
    Comparison,
    compare_arms,
    question_rows,
    said_of,
    with_holm_over_categories,
    with_holm_over_questions,
    with_visible_by_width,
)
from ..design.conditions import NO_PATCH, Arm
from ..design.contrasts import contrast_rows
from ..design.findings import Compared, judged_comparisons, resampled
from ..design.material import text_tag
from ..design.sequences import REPORT, SELECTION
from ..design.totals import Totals, rows_with_tables, totals_by_category
from ..engine.results import Analysis, Tables
from .evaluation import NO_SEED, over_seeds
from .figures import draw
from .inspection_tables import read_tables_of
from .questions import NAMES, TABLES, LearnedQuestion, questions
from .sampled import SAMPLES, loop_rows, samples_to_show
from .settings import AFTER_A_SURPRISE, LOOPS, RARE_WORDS, LearnedSettings, control_sources
from .sweeps import sweep_tables
from .writes import TABLE, Training


def main_arm(settings: LearnedSettings, source: str = "true") -> Arm:
    """The arm of a source in the main comparison, over all seeds."""
    return Training(source, settings.layer, settings.rank, settings.steps, settings.seeds[0]).arm


def analyse(settings: LearnedSettings, rows: Tables) -> Analysis:
    """Tables, one verdict per question, and figures."""
    rows = {**rows, LOOPS: loop_rows(rows[SAMPLES])}
    averaged = {table: over_seeds(rows[table]) for table in TABLES}
    asked = questions(settings)
    of_seeds = {question.name: _of_seeds(settings, question, rows) for question in asked}
    with_seeds = {
        question.name: _with_seeds(settings, question, of_seeds[question.name], averaged)
        for question in asked
    }
    compared_with = {name: _comparison(settings, totals) for name, totals in with_seeds.items()}
    seeds = _by_seed(settings, of_seeds)
    tables = {
        "contrasts": _contrasts(settings, asked, compared_with, with_seeds),
        "seeds": seeds,
        "categories": _categories(settings, averaged, asked),
        "curves": _curves(rows[TABLE]),
        "samples": samples_to_show(settings, rows, _best_control(settings, asked, averaged)),
        **sweep_tables(settings, averaged),
        **read_tables_of(settings, rows),
        "rows": _kept_rows(rows),
    }
    compared = [
        Compared(
            question.text,
            compared_with[question.name],
            _method(settings, question, compared_with[question.name], seeds, averaged),
            "materials",
            question.smallest,
            question.units,
        )
        for question in asked
    ]
    return Analysis(tables, judged_comparisons(compared), draw)


def _best_control(settings: LearnedSettings, asked: Sequence[LearnedQuestion], rows: Tables) -> Arm:
    """The control with the fewest loops on the selection half, whose samples are shown."""
    (loops,) = (question for question in asked if question.name == LOOPS)
    totals = loops.totals(rows, SELECTION)
    return totals.best(main_arm(settings, source) for source in control_sources())


def _references(settings: LearnedSettings) -> list[Arm]:
    return [NO_PATCH, *(main_arm(settings, source) for source in control_sources())]


def _of_seeds(settings: LearnedSettings, question: LearnedQuestion, rows: Tables) -> list[Totals]:
    """The report half's sums of each seed alone."""
    found = []
    for seed in settings.seeds:
        part = rows[question.table]
        of_seed = over_seeds(part[part["seed"].isin([seed, NO_SEED])])
        found.append(question.totals({question.table: of_seed}, REPORT))
    return found


def _with_seeds(
    settings: LearnedSettings,
    question: LearnedQuestion,
    of_seeds: Sequence[Totals],
    averaged: Tables,
) -> Totals:
    """The report half's sums of the main arms, with an axis of seeds after all others."""
    arms = (main_arm(settings), *_references(settings))
    cells = np.stack(
        [np.stack([seed.cells[seed.arms.index(arm)] for seed in of_seeds], -1) for arm in arms]
    )
    counts = question.totals(averaged, REPORT).cell_counts[..., None]
    lower_is_better = question.measure.lower_is_better
    return Totals(arms, cells, np.broadcast_to(counts, cells.shape[1:]), lower_is_better)


def _comparison(settings: LearnedSettings, with_seeds: Totals) -> Comparison:
    """The true source against no patch and every control, over seeds and sequences.

    Where frames are crossed with words, they are resampled too.
    """
    # Seeds are the same in both halves, so the other half says nothing of how they vary.
    return with_visible_by_width(
        compare_arms(with_seeds, main_arm(settings), _references(settings), settings.resampling)
    )


def _contrasts(
    settings: LearnedSettings,
    asked: Sequence[LearnedQuestion],
    comparisons: Mapping[str, Comparison],
    with_seeds: Mapping[str, Totals],
) -> pd.DataFrame:
    """The report half: the true source minus all its references, each of them, and controls alone.

    `p_holm` is corrected over the questions in the joint rows, and over the comparisons of the same
    question in the others.
    """
    found = []
    for question in asked:
        totals = with_seeds[question.name]
        controls = [(main_arm(settings, source), NO_PATCH) for source in control_sources()]
        alone = contrast_rows(totals, controls, settings.resampling)
        found += [
            {
                "question": question.name,
                "measure": question.measure.name,
                "units": question.units,
                "lower_is_better": question.measure.lower_is_better,
                **row,
                "mean": totals.mean(main_arm(settings, row["source"])),
                "unpatched": totals.mean(NO_PATCH),
                "count": int(totals.counts.sum()) // len(settings.seeds),
            }
            for row in question_rows(comparisons[question.name], alone)
        ]
    return with_holm_over_questions(pd.DataFrame(found))


def _kept_rows(rows: Tables) -> pd.DataFrame:
    """The rows of every question on the report half, with their table and the training's seed."""
    kept = rows_with_tables({table: rows[table] for table in TABLES}, "seed")
    return kept[kept["half"] == REPORT].reset_index(drop=True)


def _by_seed(settings: LearnedSettings, of_seeds: Mapping[str, Sequence[Totals]]) -> pd.DataFrame:
    """Each seed alone: the true source minus no patch, and minus each control."""
    pairs = [(main_arm(settings), reference) for reference in _references(settings)]
    return pd.DataFrame(
        [
            {"question": question, "seed": seed, **row}
            for question, each in of_seeds.items()
            for seed, totals in zip(settings.seeds, each, strict=True)
            for row in contrast_rows(totals, pairs, settings.resampling)
        ]
    )


def _categories(
    settings: LearnedSettings, rows: Tables, asked: Sequence[LearnedQuestion]
) -> pd.DataFrame:
    """The report half by kind of token and word: the true source minus all its references and each.

    `p_holm` is corrected over the categories of a division and comparison. The writes are means
    over seeds; sequences are resampled.
    """
    by_name = {question.name: question for question in asked}
    edges = settings.material.surprisal_edges
    bins = bin_by(torch.zeros(1, 1), edges).labels
    texts = [(NAMES.get(text, text), text_tag(text)) for text in settings.material.texts]
    divisions: list[tuple[str, str, dict[str, set[str]]]] = [
        (
            "surprisal of the token before",
            AFTER_A_SURPRISE,
            {label: {f"bin-{index}"} for index, label in enumerate(bins)},
        ),
        (
            "copyable and other tokens",
            AFTER_A_SURPRISE,
            {f"{kind}, {n}": {kind, tag} for kind in ("copyable", "other") for n, tag in texts},
        ),
        (
            "kind of word",
            RARE_WORDS,
            {tag: {tag} for tag in ("common", "rare", "near", "far", "single", "several")},
        ),
    ]
    found: list[dict[str, Any]] = []
    for division, name, tags in divisions:
        question = by_name[name]
        part = rows[question.table]
        for label, _, totals in totals_by_category(part, question.measure, tags, REPORT):
            common = {
                "division": division,
                "measure": question.measure.name,
                "lower_is_better": question.measure.lower_is_better,
                "category": label,
                "count": int(totals.counts.sum()),
            }
            comparison = compare_arms(
                totals, main_arm(settings), _references(settings), settings.resampling
            )
            found += [{**common, **row} for row in comparison.rows()]
    return pd.DataFrame(with_holm_over_categories(found))


def _curves(rows: pd.DataFrame) -> pd.DataFrame:
    """The curves of every training, without its write."""
    return rows[rows["kind"] != "write"].drop(columns="write").reset_index(drop=True)


def _method(
    settings: LearnedSettings,
    question: LearnedQuestion,
    comparison: Comparison,
    by_seed: pd.DataFrame,
    rows: Tables,
) -> str:
    totals = question.totals(rows, REPORT)
    rank = "full rank" if settings.rank is None else f"rank {settings.rank}"
    seeds, clusters = len(settings.seeds), totals.n_clusters
    plain = by_seed[(by_seed["question"] == question.name) & (by_seed["minus"] == "none")]
    each = ", ".join(f"{estimate:.3g}" for estimate in plain["estimate"])
    return (
        f"{capital(question.material)}; {int(totals.counts.sum())} "
        f"{question.items} in {counted(clusters, 'cluster')} of the report "
        f"part. The write, {rank} at layer {settings.layer}, was trained for {settings.steps} "
        f"steps on {settings.corpus} with {counted(seeds, 'seed')}, and so was every "
        "control. "
        f"{resampled('Clusters', seeds)} {said_of(comparison, question.units)} True source minus "
        f"no patch by seed: {each}."
    )
