"""Tables of the loops experiment."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...intervention.sources import source_names
from ...measures.behaviour import Loop, distinct_n, loop_free_survival
from ...measures.intervals import share_interval
from ..design.conditions import (
    ARM_COLUMNS,
    BACK_PATCH,
    NO_PATCH,
    Arm,
    Cell,
    arm_label,
    condition_label,
)
from ..design.grid_cells import effect_over_grid
from ..design.rules import GREEDY, Rule
from ..design.samples import LOOPED, REP, sample_totals
from ..design.sequences import REPORT, SELECTION
from ..design.totals import Measure, Totals, totals_of
from ..engine.results import Tables
from .choice import again_totals, loss_totals
from .cost import EXCLUDED, LOSS
from .settings import LoopsSettings

ALL = "all"
# A survival curve keeps one token in so many.
_STEP = 4


def condition_table(rows: Tables, settings: LoopsSettings) -> pd.DataFrame:
    """Loops, repetition and cost of every condition, on the report half.

    Conditions without a patch that were sampled on both halves have a second row for all prompts,
    because nothing about them was chosen.
    """
    losses = rows["loss"]

    @functools.cache  # the arms of a rule are in one table
    def totals(rule: Rule, measure: str) -> Totals:
        return totals_of(losses[losses["rule"] == str(rule)], Measure(measure), REPORT)

    found = []
    for arm, rule, part in _conditions(rows["samples"]):
        cost = _cost(totals, settings, arm, rule)
        here = part[part["half"] == REPORT]
        found.append(_condition(settings, arm, rule, here, REPORT, cost))
        if arm == NO_PATCH and (part["half"] == SELECTION).any():
            found.append(_condition(settings, arm, rule, part, ALL, cost))
    return pd.DataFrame(found)


def survival_table(rows: Tables, settings: LoopsSettings) -> pd.DataFrame:
    """Share of samples that have not entered a loop, over time, on the report half.

    A sample that ended by itself counts as never looping. Near the end the share is overestimated
    where rounds are long, as `loop_free_survival` says.
    """
    found = []
    for arm, rule, part in _conditions(rows["samples"]):
        here = part[part["half"] == REPORT]
        loops = [
            Loop(row["onset"], row["onset"] + row["loop_length"], row["period"])
            if row["looped"]
            else None
            for row in here.to_dict("records")
        ]
        curve = loop_free_survival(
            loops, [settings.new_tokens] * len(loops), level=settings.resampling.level
        )
        kept = slice(None, None, _STEP)
        found.append(
            pd.DataFrame(
                {
                    "condition": condition_label(arm, str(rule)),
                    "family": _family(arm, rule),
                    "token": curve.time[kept],
                    "estimate": curve.share[kept],
                    "low": curve.low[kept],
                    "high": curve.high[kept],
                }
            )
        )
    return pd.concat(found, ignore_index=True)


def grid_table(rows: Tables, settings: LoopsSettings) -> pd.DataFrame:
    """The true source minus no patch at every cell of the grid, on the selection half."""
    samples = sample_totals(rows["search"])
    measures = {
        "share ending in a loop": totals_of(samples, Measure(LOOPED), SELECTION),
        "rep-4": totals_of(samples, Measure(REP), SELECTION),
        "loss on held-out prose, nats": loss_totals(rows, SELECTION),
        "probability of another round": again_totals(rows, SELECTION),
        **{
            f"probability of another round after {k}": again_totals(rows, SELECTION, k)
            for k in range(1, settings.rounds)
        },
    }
    return pd.concat(
        [
            effect_over_grid(totals, settings.resampling).assign(measure=name)
            for name, totals in measures.items()
        ],
        ignore_index=True,
    )


def escape_table(rows: Tables, cell: Cell, settings: LoopsSettings) -> pd.DataFrame:
    """Probability of another round after k rounds, at the chosen cell, on the report half."""
    found = []
    for k in range(1, settings.rounds):
        again = again_totals(rows, REPORT, k)
        arms = [arm for arm in again.arms if arm == NO_PATCH or arm.cell == cell]
        for arm in sorted(arms, key=lambda arm: (arm != NO_PATCH, arm.source != "true")):
            interval = settings.resampling.interval(again.of(arm), again.counts)
            found.append(
                {
                    "condition": arm_label(arm),
                    "source": arm.source,
                    "cell": str(cell),
                    "rounds_said": str(k),
                    **interval.columns(),
                }
            )
    return pd.DataFrame(found)


def noticing_table(rows: pd.DataFrame, settings: LoopsSettings) -> pd.DataFrame:
    """Mean of log(1 + rank) of the right continuation and share of rank 0, by round and point."""
    found = []
    for (number, _, label), part in rows.groupby(["round", "point", "label"], sort=True):
        counts = part["count"].to_numpy(dtype=np.float64)
        interval = settings.resampling.interval(part["log_rank"].to_numpy(), counts)
        found.append(
            {
                "round": number,
                "point": label,
                **interval.columns(),
                "top_share": part["top"].sum() / counts.sum(),
            }
        )
    return pd.DataFrame(found)


def _conditions(samples: pd.DataFrame) -> list[tuple[Arm, Rule, pd.DataFrame]]:
    """Samples by condition: greedy before other rules, no patch before sources."""
    columns = [*ARM_COLUMNS, *(f"rule_{field.name}" for field in fields(Rule))]
    n = len(ARM_COLUMNS)
    found = []
    for _, part in samples.groupby(columns, sort=True):
        # The keys of the group would be numpy's numbers in pandas 2.2.
        keys: tuple[Any, ...] = next(part[columns].itertuples(index=False, name=None))
        found.append((Arm(*keys[:n]), Rule(*keys[n:]), part))
    order = ("none", *source_names(), BACK_PATCH)
    # A stable sort: strengths and parameters stay in the order of their numbers.
    return sorted(found, key=lambda of: (of[1] != GREEDY, of[1].family, order.index(of[0].source)))


def _condition(
    settings: LoopsSettings,
    arm: Arm,
    rule: Rule,
    part: pd.DataFrame,
    prompts: str,
    cost: Mapping[str, object],
) -> dict[str, object]:
    looped = part[part["looped"]]
    share = share_interval(len(looped), len(part), level=settings.resampling.level)
    rep = part["rep_4"].fillna(0).to_numpy()
    rep_4 = settings.resampling.interval(rep)
    tokens, lengths = _padded(part["tokens"])
    return {
        "condition": condition_label(arm, str(rule)),
        "prompts": prompts,
        "n": len(part),
        "loop_share": share.estimate,
        "loop_low": share.low,
        "loop_high": share.high,
        "onset": looped["onset"].median(),
        "period": looped["period"].median(),
        "loop_length": looped["loop_length"].median(),
        "rep_2": part["rep_2"].fillna(0).mean(),
        "rep_4": rep_4.estimate,
        "rep_4_low": rep_4.low,
        "rep_4_high": rep_4.high,
        "distinct_2": distinct_n(tokens, 2, lengths=lengths),
        "ended": (part["n_tokens"] < part["new_tokens"]).mean(),
        **cost,
        "family": _family(arm, rule),
        **arm.columns(),
        "rule": str(rule),
    }


def _cost(
    totals_under: Callable[[Rule, str], Totals], settings: LoopsSettings, arm: Arm, rule: Rule
) -> dict[str, object]:
    """Loss on the report half of the prose, its change from no patch, and the share cut off.

    Greedy decoding leaves the distribution alone, so its loss is the model's. The change is paired
    by document.
    """
    plain = totals_under(GREEDY, LOSS).of(NO_PATCH)
    totals = totals_under(rule, LOSS)
    loss, change = (
        settings.resampling.interval(values, totals.counts)
        for values in (totals.of(arm), totals.of(arm) - plain)
    )
    return {
        "loss": loss.estimate,
        "loss_low": loss.low,
        "loss_high": loss.high,
        "loss_change": change.estimate,
        "loss_change_low": change.low,
        "loss_change_high": change.high,
        "excluded": totals_under(rule, EXCLUDED).mean(arm),
    }


def _family(arm: Arm, rule: Rule) -> str:
    if arm == NO_PATCH:
        return "no patch" if rule == GREEDY else rule.family
    kind = "true next token" if arm.source == "true" else "controls"
    return kind if rule == GREEDY else f"{kind}, {rule.family}"


def _padded(texts: pd.Series) -> tuple[Tensor, Tensor]:
    rows = [torch.tensor(np.asarray(ids, dtype=np.int64)) for ids in texts]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return padded, torch.tensor([len(row) for row in rows])
