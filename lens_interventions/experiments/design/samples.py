"""Texts sampled from open-ended prompts, and the loops in which they end."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge

from ...intervention.generation.generate import generate
from ...measures.behaviour import Loop, ending_loop, rep_n
from ..engine.json_values import from_values
from ..engine.work_units import unit_kind
from .conditions import ARM_COLUMNS, NO_PATCH, Arm, PatchSettings, condition_label
from .prompts import prompt_seed
from .rules import GREEDY, Rule
from .sequences import REPORT

LOOPED, REP = "looped", "rep-4"

KEPT = ("before", "first_round", "again")
"""Parts of a sample: up to its loop, the loop's first round, and the rest of it."""


@unit_kind("samples")
def measure_samples(
    bridge: TransformerBridge,
    prompts: Sequence[Mapping[str, Any]],
    arms: Sequence[Mapping[str, Any]],
    rule: Mapping[str, Any],
    patch: Mapping[str, Any] | PatchSettings,
    new_tokens: int,
    seed: int,
) -> pd.DataFrame:
    """Sample texts: a row per arm and prompt, with the loop in which the text ends.

    Only the tokens before an end-of-text token count. `onset`, `period` and `loop_length` are in
    tokens, -1 without a loop. `before`, `first_round` and `again` are the three parts of the text:
    up to the loop, its first round, and the rest of the loop.
    """
    chosen, conditions = Rule(**rule), [Arm(**arm) for arm in arms]
    settings = patch if isinstance(patch, PatchSettings) else from_values(PatchSettings, patch)
    texts = [list(prompt["tokens"]) for prompt in prompts]
    contrasts = [] if chosen.contrast is None else [chosen.contrast]
    out = generate(
        bridge,
        texts,
        settings.patches(bridge, conditions),
        max_new_tokens=new_tokens,
        do_sample=chosen.sample,
        logits_processor=[*contrasts, *chosen.processors()],
        seed=[prompt_seed(seed, prompt) for prompt in prompts],
        text_seeds=torch.tensor([prompt["number"] for prompt in prompts]),
    )
    compared = [(arm, prompt) for arm in conditions for prompt in prompts]
    rows = []
    for (arm, prompt), row, ended in zip(
        compared, out.tokens.tolist(), out.finished.tolist(), strict=True
    ):
        # A text that ended by itself contains the token that ended it.
        ids = [token for token in row if token >= 0][: -1 if ended else None]
        rows.append(
            {
                "half": prompt["half"],
                "prompt": prompt["number"],
                "register": prompt["register"],
                **arm.columns(),
                **{f"rule_{name}": value for name, value in chosen.columns().items()},
                "rule": str(chosen),
                "new_tokens": new_tokens,
                "prompt_text": prompt["text"],
                **_described(bridge, ids),
            }
        )
    return pd.DataFrame(rows)


def sample_totals(samples: pd.DataFrame) -> pd.DataFrame:
    """Samples as rows of sums, one of each measure for each prompt.

    A text that ended by itself before its fourth token has no 4-gram. It counts with a rep-4 of 0,
    so that arms are compared on the same prompts: like a text that ended before it could loop, it
    repeats nothing. The share of texts that ended is in the table of conditions.
    """
    arms = samples[list(ARM_COLUMNS)]
    common = {
        "half": samples["half"],
        "sequence": samples["prompt"],
        "cluster": samples["prompt"].astype(str),
        "category": samples["rule"].str.replace(" ", "_"),
    }
    parts = [
        arms.assign(
            **common,
            crossed="",
            measure=measure,
            total=samples[column].fillna(0).astype(float),
            count=1,
        )
        for measure, column in ((LOOPED, "looped"), (REP, "rep_4"))
    ]
    return pd.concat(parts, ignore_index=True)


def shown_samples(samples: pd.DataFrame, control: Arm, shown: int) -> pd.DataFrame:
    """Samples of the first `shown` prompts, greedy and at temperatures, for a reader.

    The arms are no patch, the true source and one control.

    Columns: condition, prompt_number, register, prompt, the parts of the text, onset and period.
    """
    reported = samples[samples["half"] == REPORT]
    prompts = sorted(reported["prompt"].unique())[:shown]
    cell = control.cell
    arms = {NO_PATCH, Arm.at(cell), control}
    kept = []
    for row in reported[reported["prompt"].isin(prompts)].to_dict("records"):
        arm = Arm(*(row[column] for column in ARM_COLUMNS))
        if arm not in arms or not (
            row["rule"] == str(GREEDY) or row["rule"].startswith("temperature")
        ):
            continue
        kept.append(
            {
                "condition": condition_label(arm, row["rule"]),
                "prompt_number": row["prompt"],
                "register": row["register"],
                "prompt": row["prompt_text"],
                **{part: row[part] for part in KEPT},
                "onset": row["onset"],
                "period": row["period"],
            }
        )
    return pd.DataFrame(kept)


def _described(bridge: TransformerBridge, ids: list[int]) -> dict[str, Any]:
    tokens = torch.tensor(ids, dtype=torch.long)
    loop = ending_loop(tokens)
    return {
        "n_tokens": len(ids),
        "looped": loop is not None,
        "onset": -1 if loop is None else loop.start,
        "period": -1 if loop is None else loop.period,
        "loop_length": -1 if loop is None else loop.length,
        **{f"rep_{n}": float(rep_n(tokens[None], n)[0]) for n in (2, 4)},
        **_in_parts(bridge, ids, loop),
        "tokens": ids,
    }


def _in_parts(bridge: TransformerBridge, ids: list[int], loop: Loop | None) -> dict[str, str]:
    start = len(ids) if loop is None else loop.start
    once = len(ids) if loop is None else loop.start + loop.period
    cuts = {"before": ids[:start], "first_round": ids[start:once], "again": ids[once:]}
    tokenizer = bridge.tokenizer
    if tokenizer is None:
        return {name: " ".join(map(str, part)) for name, part in cuts.items()}
    return {name: tokenizer.decode(part) for name, part in cuts.items()}
