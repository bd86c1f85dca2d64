"""The comparisons of a finished run's greedy samples, sampled again from fewer prompts."""

from dataclasses import asdict

from transformer_lens.model_bridge import TransformerBridge

from ...measures.intervals import Interval
from ..design.conditions import Arm
from ..design.prompts import halves, prompt_items
from ..design.rules import GREEDY
from ..design.samples import measure_samples
from ..design.sequences import REPORT
from ..engine.results import Tables
from .analysis import LOOPS_QUESTION, REPETITION_QUESTION, loops_interval, repetition_interval
from .settings import LoopsSettings


def loops_again(
    bridge: TransformerBridge, settings: LoopsSettings, tables: Tables
) -> dict[str, Interval]:
    """True source minus best control, by question, at the cell and with the control of a run.

    **Arguments:**

    - `settings`: those of the run, with fewer prompts; the first ones of its report half are
        sampled. A loop takes room: with fewer new tokens it would be another quantity.
    - `tables`: of the run, "conditions" and "samples".
    """
    true, control = compared_arms(tables)
    prompts = halves(prompt_items(bridge, settings.prompts, settings.seed))[REPORT]
    samples = measure_samples(
        bridge,
        prompts,
        [true.columns(), control.columns()],
        GREEDY.columns(),
        asdict(settings.patch),
        settings.new_tokens,
        settings.seed,
    )
    return {
        question: interval(samples, true, control, settings.resampling)
        for question, interval in (
            (LOOPS_QUESTION, loops_interval),
            (REPETITION_QUESTION, repetition_interval),
        )
    }


def compared_arms(tables: Tables) -> tuple[Arm, Arm]:
    """The true source at the cell of a run, and the control that it was compared with there."""
    conditions = tables["conditions"]
    # Of the controls a run shows samples of the best one alone.
    shown = conditions["condition"].isin(tables["samples"]["condition"])
    (row,) = conditions[shown & (conditions["family"] == "controls")].to_dict("records")
    control = Arm(row["source"], int(row["layer"]), float(row["strength"]), row["mode"])
    return Arm.at(control.cell), control
