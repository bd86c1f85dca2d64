"""Samples that are kept for a reader."""

import pandas as pd

from ..design.conditions import NO_PATCH, Arm, condition_label
from ..design.rules import GREEDY
from ..design.sequences import REPORT

KEPT = ("before", "first_round", "again")
"""Parts of a sample: up to its loop, the loop's first round, and the rest of it."""


def shown_samples(samples: pd.DataFrame, control: Arm, shown: int) -> pd.DataFrame:
    """Samples of the first `shown` prompts: without patch, true and best control, at temperatures.

    Columns: condition, prompt_number, register, prompt, the parts of the text, onset and period.
    """
    report = samples[samples["half"] == REPORT]
    prompts = sorted(report["prompt"].unique())[:shown]
    cell = control.cell
    arms = {NO_PATCH, Arm.at(cell), control}
    kept = []
    for row in report[report["prompt"].isin(prompts)].to_dict("records"):
        arm = Arm(row["source"], row["layer"], row["strength"], row["mode"])
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
