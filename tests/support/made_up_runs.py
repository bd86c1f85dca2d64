"""Finished runs of experiments on disk, made up."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pandas as pd
import plotly.graph_objects as go

from lens_interventions.experiments import Finding, Result
from lens_interventions.experiments.engine.run_header import write_json
from lens_interventions.measures.intervals import Interval
from lens_interventions.measures.verdicts import verdict

INTERVALS = {
    "helps": Interval(-0.30, -0.42, -0.18, 0.95, "BCa", 36),
    "helps a little": Interval(-0.05, -0.08, -0.02, 0.95, "BCa", 36),
    "hurts": Interval(0.20, 0.11, 0.31, 0.95, "BCa", 36),
    "no effect": Interval(0.01, -0.03, 0.04, 0.95, "percentile", 36),
    "undecided": Interval(-0.05, -0.21, 0.12, 0.95, "Bonett-Price", 36),
}
NOTHING = Interval(0.5, float("nan"), float("nan"), 0.95, "none", 1)

SAMPLES = pd.DataFrame(
    {
        "condition": ["no patch, greedy", "true next token, greedy"],
        "prompt": ["Once <upon> a time", "Once <upon> a time"],
        "before": [" there was", " there was a goat."],
        "first_round": [" a king & a queen,", ""],
        "again": [" a king & a queen, a king & a", ""],
        "onset": [3, -1],
    }
)

SETTINGS = MappingProxyType({"layers": [3, 5], "patch": {"scale": "norm"}})
MODEL = MappingProxyType({"name": "made-up"})


def save_run(
    directory: Path,
    experiment: str,
    intervals: Mapping[str, Interval] = INTERVALS,
    *,
    settings: Mapping[str, object] = SETTINGS,
    model: Mapping[str, object] = MODEL,
    figure: str = "curve",
) -> None:
    """A finished run on disk. Its one figure is "curve"; `figure` is what its findings name."""
    directory.mkdir(parents=True)
    header = {
        "format": "lens_interventions.run/1",
        "experiment": experiment,
        "settings": dict(settings),
        "model": {
            "n_layers": 3,
            "d_model": 32,
            "d_vocab": 112,
            "dtype": "float64",
            "device": "cpu",
            **model,
        },
        "versions": {"torch": "9.9"},
    }
    write_json(directory / "settings.json", header)
    findings = tuple(
        Finding(
            f"Is it <{name}>?",
            verdict(interval, smallest_effect=0.1, lower_is_better=True, units="nats"),
            f"how {name} was found",
            figure,
        )
        for name, interval in intervals.items()
    )
    tables = {
        "conditions": pd.DataFrame({"condition": ["none", "<true>"], "loss": [3.25, float("nan")]}),
        "samples": SAMPLES,
        "long": pd.DataFrame({"row": range(500)}),
    }
    title = {"text": "Loss by layer<br><sup>* p &lt; 0.05</sup></script>"}
    drawn = go.Figure(go.Scatter(y=[1, 2], text=["</script>", "b"]), {"title": title})
    Result(header, tables, findings, lambda _tables: {"curve": drawn}).save(directory)
