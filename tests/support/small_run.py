"""A small experiment of two stages, and what its runs are compared by."""

import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pandas.testing import assert_frame_equal
from transformer_lens.model_bridge import TransformerBridge

from lens_interventions.experiments import (
    Analysis,
    Experiment,
    Finding,
    Result,
    Unit,
    run,
    unit_kind,
)
from lens_interventions.measures.intervals import mean_interval
from lens_interventions.measures.verdicts import verdict
from tests.support.tiny import tiny_bridge


@dataclass(frozen=True)
class Settings:
    starts: tuple[int, ...] = (3, 4, 5, 6)
    gate: str = "."  # the later units wait until it exists, as this directory does
    tags: tuple[tuple[str, int], ...] = (("a", 1),)


def small_bridge() -> TransformerBridge:
    return tiny_bridge("llama")


def other_bridge() -> TransformerBridge:
    return tiny_bridge("llama", seed=1)


@unit_kind("mean logits")
def mean_logits(bridge: TransformerBridge, start: int, gate: str) -> pd.DataFrame:
    """Rows of a unit: two sequences, and the mean of their logits."""
    while start > 4 and not Path(gate).exists():
        time.sleep(0.02)
    tokens = torch.arange(start, start + 12).reshape(2, 6)
    means = bridge(tokens).mean((-1, -2))
    return pd.DataFrame({"start": start, "sequence": [0, 1], "mean": means.numpy()})


def first_stage(bridge: TransformerBridge, settings: Settings, rows: object) -> list[Unit]:
    return [
        Unit("first", f"unit-{n}", mean_logits, {"start": n, "gate": settings.gate})
        for n in settings.starts
    ]


def second_stage(
    bridge: TransformerBridge, settings: Settings, rows: dict[str, pd.DataFrame]
) -> list[Unit]:
    """Measures where the first stage found the largest mean."""
    best = int(rows["first"].sort_values("mean")["start"].iloc[-1])
    return [Unit("second", "best", mean_logits, {"start": 30 + best, "gate": settings.gate})]


def analyse(settings: Settings, rows: dict[str, pd.DataFrame]) -> Analysis:
    values = rows["first"].groupby("start")["mean"].mean().to_numpy()
    interval = mean_interval(values, rng=np.random.default_rng(0), n_resamples=99)
    judged = verdict(interval, smallest_effect=1e-6, lower_is_better=True, units="logits")
    alone = mean_interval(values[:1], rng=np.random.default_rng(0))  # its ends are nan
    return Analysis(
        tables={"rows": pd.concat(rows.values(), ignore_index=True)},
        verdicts=(
            Finding("Is it low?", judged, "a mean", "means"),
            Finding("Is the first?", replace(judged, interval=alone), "a mean", "means"),
        ),
        draw=draw,
    )


def draw(tables: dict[str, pd.DataFrame]) -> dict[str, object]:
    import plotly.graph_objects as go

    return {"means": go.Figure(go.Scatter(y=tables["rows"]["mean"].tolist()))}


STAGES = {"first": first_stage, "second": second_stage}


def example(settings: Settings | None = None) -> Experiment:
    return Experiment("example", settings or Settings(), STAGES, analyse)


def run_small(out: Path, gate: Path) -> None:
    """The example, in a process of its own that Ctrl-C stops."""
    # What a shell starts in the background ignores Ctrl-C, and so does all that it starts in turn.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run(example(Settings(gate=str(gate))), small_bridge, out=out)


def assert_same(result: Result, expected: Result) -> None:
    """Equal bit by bit: the models are too small for several threads to share a sum."""
    assert_frame_equal(result.to_dataframe(), expected.to_dataframe(), check_exact=True)
    assert repr(result.verdicts) == repr(expected.verdicts)  # by repr, as nan != nan
    assert result.figures()["means"] == expected.figures()["means"]
