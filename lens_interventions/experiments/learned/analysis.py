"""From the rows of the experiment with learned writes to tables and verdicts.

Differences are paired over sequences and seeds: a sequence's difference is the mean over seeds of
the true source minus the control, both trained with the same seed and measured on that sequence.
Intervals resample sequences, and sign-flip tests flip them. The table "seeds" shows how far the
seeds differ.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import torch

from ...measures.behaviour import bin_by
from ...measures.verdicts import verdict
from ..design.conditions import NO_PATCH, Arm
from ..design.contrasts import Measure, Totals, contrast, row_interval, totals_of, with_holm
from ..design.sequences import REPORT, SELECTION
from ..engine.results import Analysis, Finding, Tables
from .evaluation import NO_SEED, over_seeds
from .figures import draw
from .inspection_tables import read_tables_of
from .questions import LOOPS, NAMES, TABLES, Question, questions
from .sampled import SAMPLES, loop_rows, samples_to_show
from .settings import LearnedSettings, control_sources, trained_sources
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
    chosen = {question.name: _best_control(settings, question, averaged) for question in asked}
    contrasts = pd.DataFrame(
        [row for question in asked for row in _contrasts(settings, question, averaged, chosen)]
    )
    tables = {
        "contrasts": contrasts,
        "seeds": _by_seed(settings, rows, asked, chosen),
        "categories": _categories(settings, averaged, asked, chosen),
        "curves": _curves(rows[TABLE]),
        "samples": samples_to_show(settings, rows, main_arm(settings, chosen["loops"])),
        **sweep_tables(settings, averaged),
        **read_tables_of(settings, rows),
    }
    verdicts = tuple(
        _finding(settings, question, contrasts, tables["seeds"], averaged) for question in asked
    )
    return Analysis(tables, verdicts, draw)


def compared(
    settings: LearnedSettings, totals: Totals, pairs: Iterable[tuple[Arm, Arm]]
) -> list[dict[str, Any]]:
    """A row of arm minus reference for each pair, with Holm's correction over the pairs."""
    return with_holm(
        [
            {
                "source": arm.source,
                "minus": reference.source,
                **contrast(totals, arm, reference, settings.resampling).columns(),
            }
            for arm, reference in pairs
        ]
    )


def _best_control(settings: LearnedSettings, question: Question, rows: Tables) -> str:
    """The control that does best on the selection half."""
    totals = question.totals(rows, SELECTION)
    choose = min if question.measure.lower_is_better else max
    return choose(control_sources(), key=lambda source: totals.mean(main_arm(settings, source)))


def _contrasts(
    settings: LearnedSettings, question: Question, rows: Tables, chosen: dict[str, str]
) -> list[dict[str, Any]]:
    """The report half: the true source minus the best control, and every source minus no patch.

    `p_holm` is corrected over all comparisons of the same question.
    """
    totals = question.totals(rows, REPORT)
    control = main_arm(settings, chosen[question.name])
    pairs = [
        (main_arm(settings), control),
        *((main_arm(settings, source), NO_PATCH) for source in trained_sources()),
    ]
    return [
        {
            "question": question.name,
            "measure": question.measure.name,
            "units": question.units,
            "lower_is_better": question.measure.lower_is_better,
            **row,
            "mean": totals.mean(main_arm(settings, row["source"])),
            "unpatched": totals.mean(NO_PATCH),
            "count": int(totals.counts.sum()),
        }
        for row in compared(settings, totals, pairs)
    ]


def _by_seed(
    settings: LearnedSettings, rows: Tables, asked: Sequence[Question], chosen: dict[str, str]
) -> pd.DataFrame:
    """Each seed alone: the true source minus the best control, and minus no patch."""
    found = []
    for seed in settings.seeds:
        of_seed = {
            table: over_seeds(part[part["seed"].isin([seed, NO_SEED])])
            for table, part in rows.items()
            if table in TABLES
        }
        for question in asked:
            totals = question.totals(of_seed, REPORT)
            references = [main_arm(settings, chosen[question.name]), NO_PATCH]
            pairs = [(main_arm(settings), reference) for reference in references]
            found += [
                {"question": question.name, "seed": seed, **row}
                for row in compared(settings, totals, pairs)
            ]
    return pd.DataFrame(found).drop(columns="p_holm")


def _categories(
    settings: LearnedSettings, rows: Tables, asked: Sequence[Question], chosen: dict[str, str]
) -> pd.DataFrame:
    """The report half by kind of token and word: the true source and the best control.

    `p_holm` is corrected over the categories of a division and comparison.
    """
    by_name = {question.name: question for question in asked}
    edges = settings.material.surprisal_edges
    bins = bin_by(torch.zeros(1, 1), edges).labels
    texts = [(NAMES.get(text, text), text.replace(" ", "_")) for text in settings.material.texts]
    divisions: list[tuple[str, str, dict[str, set[str]]]] = [
        (
            "surprisal of the token before",
            "after a surprise",
            {label: {f"bin-{index}"} for index, label in enumerate(bins)},
        ),
        (
            "copyable and other tokens",
            "after a surprise",
            {f"{kind}, {n}": {kind, tag} for kind in ("copyable", "other") for n, tag in texts},
        ),
        (
            "kind of word",
            "rare words",
            {tag: {tag} for tag in ("common", "rare", "near", "far", "single", "several")},
        ),
    ]
    found = []
    for division, name, tags in divisions:
        question = by_name[name]
        true, control = main_arm(settings), main_arm(settings, chosen[name])
        for arm, reference in ((true, NO_PATCH), (control, NO_PATCH), (true, control)):
            some = []
            for label, wanted in tags.items():
                measure = Measure(question.measure.name, frozenset(wanted))
                part = rows[question.table]
                if not any(wanted <= set(c.split()) for c in part["category"].unique()):
                    continue
                totals = totals_of(part, measure, REPORT)
                if totals.counts.sum() == 0:
                    continue
                (row,) = compared(settings, totals, [(arm, reference)])
                some.append({"category": label, "count": int(totals.counts.sum()), **row})
            # Holm's correction over the categories; a single comparison had nothing to correct.
            common = {
                "division": division,
                "measure": question.measure.name,
                "lower_is_better": question.measure.lower_is_better,
            }
            found += [{**common, **row} for row in with_holm(some)]
    return pd.DataFrame(found)


def _curves(rows: pd.DataFrame) -> pd.DataFrame:
    """The curves of every training, without its write."""
    return rows[rows["kind"] != "write"].drop(columns="write").reset_index(drop=True)


def _finding(
    settings: LearnedSettings,
    question: Question,
    contrasts: pd.DataFrame,
    by_seed: pd.DataFrame,
    rows: Tables,
) -> Finding:
    of_question = contrasts[contrasts["question"] == question.name].to_dict("records")
    headline = of_question[0]
    plain = next(r for r in of_question if r["source"] == "true" and r["minus"] == "none")
    totals = question.totals(rows, REPORT)
    judged = verdict(
        row_interval(headline),
        smallest_effect=question.smallest,
        lower_is_better=question.measure.lower_is_better,
        units=question.units,
    )
    rank = "full rank" if settings.rank is None else f"rank {settings.rank}"
    seeds, clusters = len(settings.seeds), int((totals.counts > 0).sum())
    own = by_seed[(by_seed["question"] == question.name) & (by_seed["minus"] == headline["minus"])]
    each = ", ".join(f"{estimate:.3g}" for estimate in own["estimate"])
    method = (
        f"{question.material[0].upper()}{question.material[1:]}; {int(totals.counts.sum())} "
        f"{question.items} in {clusters} cluster{'s' if clusters != 1 else ''} of the report half. "
        f"The write, {rank} at layer {settings.layer}, was trained for {settings.steps} steps on "
        f"{settings.corpus} with {seeds} seed{'s' if seeds > 1 else ''}; a cluster's difference is "
        "the mean over the seeds, and clusters are resampled. Best control, trained in the same "
        f"way, chosen on the other half: {headline['minus']}. True source minus no patch: "
        f"{row_interval(plain)} (p = {plain['p_value']:.2g}); minus best control "
        f"p = {headline['p_value']:.2g}, {headline['p_holm']:.2g} after Holm's correction over the "
        f"comparisons of this question. By seed: {each}. The interval is about these trainings: it "
        "knows nothing of how others would have turned out."
    )
    return Finding(question.text, judged, method, "materials")
