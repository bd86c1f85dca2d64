"""Repeated passages, scored round by round and layer by layer."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge

from ..._progress import steps
from ...lens.logit_lens import logit_lens
from ...model.points import select_points
from ..design.conditions import Arm, PatchSettings
from ..design.scores import read_log_probs
from ..engine.json_values import from_values
from ..engine.work_units import unit_kind

AGAIN, LOG_ODDS = "again", "log_odds"
# Probabilities closer to 1 cannot be distinguished from it.
_NEAREST = 1e-12


@unit_kind("another round")
def measure_rounds(
    bridge: TransformerBridge,
    passages: Sequence[Mapping[str, Any]],
    arms: Sequence[Mapping[str, Any]],
    patch: Mapping[str, Any],
) -> pd.DataFrame:
    """How likely each arm is to repeat a passage once more, after k = 1, 2, ... rounds.

    For every arm, passage and k there is a row "again", the probability that free running at
    temperature 1 says the passage exactly once more, which is the product of the probabilities of
    its tokens. Another row, "log_odds", is log(p / (1 - p)) in nats, in which an effect on a small
    probability is as visible as one on a large probability.

    One teacher-forced pass gives all k at once, because the patch writes the same vectors whether a
    text is sampled or given.
    """
    settings = from_values(PatchSettings, patch)
    conditions = [Arm(**arm) for arm in arms]
    rows = []
    for passage in steps(passages):
        start, said, rounds = passage["start"], passage["said"], passage["rounds"]
        text = [*start, *said * rounds]
        read = read_log_probs(bridge, [text], conditions, settings, [passage["number"]])[:, 0]
        for arm, log_probs in zip(conditions, read, strict=True):
            for k in range(1, rounds):
                first = len(start) + k * len(said) - 1
                log_prob = float(log_probs[first : first + len(said)].sum())
                rows += [
                    {
                        "half": passage["half"],
                        "sequence": passage["number"],
                        "cluster": str(passage["number"]),
                        **arm.columns(),
                        "measure": measure,
                        "category": f"k-{k}",
                        "total": value,
                        "count": 1,
                    }
                    for measure, value in (
                        (AGAIN, math.exp(log_prob)),
                        (LOG_ODDS, _log_odds(log_prob)),
                    )
                ]
    return pd.DataFrame(rows)


def _log_odds(log_prob: float) -> float:
    log_prob = min(log_prob, -_NEAREST)
    return log_prob - math.log(-math.expm1(log_prob))


@unit_kind("repetition in the lens")
def measure_noticing(
    bridge: TransformerBridge, passages: Sequence[Mapping[str, Any]], every: int
) -> pd.DataFrame:
    """The lens's rank of the right continuation, by passage, round and point, without a patch.

    `log_rank` sums log(1 + rank) over the tokens of the round, `top` counts those of rank 0. Each
    token is predicted from the position before it.
    """
    points = select_points(int(bridge.cfg.n_layers), every=every)
    rows = []
    for passage in steps(passages):
        start, said, rounds = passage["start"], passage["said"], passage["rounds"]
        read = logit_lens(bridge, torch.tensor([[*start, *said * rounds]]), points=points, top_k=1)
        ranks = read.next_rank[:, 0, :-1].double()
        for number in range(rounds):
            first = len(start) + number * len(said) - 1
            here = ranks[:, max(first, 0) : first + len(said)]
            rows += [
                {
                    "passage": passage["number"],
                    "round": number + 1,
                    "point": place,
                    "label": label,
                    "log_rank": float(row.log1p().sum()),
                    "top": float((row == 0).sum()),
                    "count": len(row),
                }
                for place, (label, row) in enumerate(zip(read.points, here, strict=True))
            ]
    return pd.DataFrame(rows)
