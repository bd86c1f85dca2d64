"""Compare networks that grow up with the true token with ones that grow up with other writes.

`python docs/scratch_controls.py train OUT` trains the networks of the controls that stored runs of
`scratch` lack, with the settings of these runs. Their other networks have been trained there, on
the same text in the same order. `python docs/scratch_controls.py train OUT RUN ...` makes some of
the runs. Without arguments the script compares all of them, from the losses of single windows in
results. Then it takes the writes away, and prints the verdicts on networks whose seeds are in
several runs.
"""

import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

import lens_interventions as li
from lens_interventions.experiments.design.contrasts import Resampling, seed_contrast
from lens_interventions.experiments.design.rows_of_sums import rows_where
from lens_interventions.experiments.design.text_scopes import AS_TRAINED, OTHER, TAKEN_AWAY
from lens_interventions.experiments.engine.json_values import from_values
from lens_interventions.experiments.engine.results import Tables
from lens_interventions.experiments.engine.work_units import Unit
from lens_interventions.experiments.scratch.analysis import best_heads, kept_rows, loss_curves
from lens_interventions.experiments.scratch.contrasts import with_in_context
from lens_interventions.experiments.scratch.decoding import DECODED
from lens_interventions.experiments.scratch.evaluation import PREFIX_MATCHING, SAME_TOKEN
from lens_interventions.experiments.scratch.findings import findings
from lens_interventions.experiments.scratch.models import StartingModel
from lens_interventions.experiments.scratch.stages import COST, TABLE, training_stage

RESULTS = Path(__file__).parents[1] / "results"


class Controls(NamedTuple):
    """The arms of a run, and the stored runs of the networks that they are compared with.

    The stored runs differ in their networks alone.
    """

    arms: tuple[str, ...]
    compared: tuple[str, ...]


RUNS = {
    "scratch-previous": Controls(("previous",), ("scratch",)),
    "scratch-depth-previous": Controls(("previous",), ("scratch-depth",)),
    "scratch-deeper-previous": Controls(
        ("previous",), ("scratch-depth-entry", "scratch-six-blocks", "scratch-eight-blocks")
    ),
    "scratch-last-of-six-previous": Controls(("previous",), ("scratch-last-of-six",)),
    "scratch-depth-controls": Controls(("shuffled", "zero"), ("scratch-depth",)),
}
SCOPES = ("copyable", "all", "second copies")

SIX_SEEDS = {
    "the last of four blocks": ("scratch-last-block", "scratch-last-block-more"),
    "the last of six blocks": (
        "scratch-last-of-six",
        "scratch-last-of-six-previous",
        "scratch-last-of-six-more",
    ),
}
"""The runs that together have six seeds of the networks that are written to there."""

WRITTEN = {
    "2 / 1, 5,000 steps": (2, ("scratch-depth", "scratch-depth-previous")),
    "4 / 1, 5,000 steps": (4, ("scratch-second-block",)),
    "4 / 2, 5,000 steps": (4, ("scratch-depth", "scratch-depth-previous")),
    "4 / 3, 5,000 steps, six seeds": (4, SIX_SEEDS["the last of four blocks"]),
    "6 / 3, 5,000 steps": (6, ("scratch-six-blocks", "scratch-deeper-previous")),
    "6 / 5, 5,000 steps, six seeds": (6, SIX_SEEDS["the last of six blocks"]),
    "6 / 5, 10,000 steps, six seeds": (6, ("scratch-last-of-six-twice",)),
    "8 / 4, 5,000 steps": (8, ("scratch-eight-blocks", "scratch-deeper-previous")),
    "2 / 1, 15,000 steps, six seeds": (2, ("scratch-loops",)),
    "4 / 2, 15,000 steps, four seeds": (4, ("scratch-four-blocks-longer",)),
}
"""Networks with the true token and, but for the last, with the previous one: blocks and runs."""


def settings_of(name: str) -> li.experiments.ScratchSettings:
    """The settings of the runs that `name` is compared with, with its own controls instead."""
    stored = [
        from_values(
            li.experiments.ScratchSettings, li.experiments.load_result(RESULTS / run).settings
        )
        for run in RUNS[name].compared
    ]
    alike = [replace(settings, networks=stored[0].networks) for settings in stored]
    assert alike == stored[:1] * len(stored)
    networks = tuple(network for settings in stored for network in settings.networks)
    return replace(
        stored[0], networks=networks, arms=("none", "true", *RUNS[name].arms), equal="steps"
    )


def trainings(bridge: Any, settings: Any, rows: Tables) -> Sequence[Unit]:
    """The trainings of the controls alone."""
    units = training_stage(bridge, settings, rows)
    return [unit for unit in units if unit.parameters["training"]["arm"] not in ("none", "true")]


def analyse(settings: Any, rows: Tables) -> li.experiments.Analysis:
    """The losses of single windows at the end, the curves, and the best heads; no verdicts."""
    measured = rows[TABLE]
    scores = measured["scope"].isin([PREFIX_MATCHING, SAME_TOKEN])
    losses = with_in_context(measured[~scores & (measured["scope"] != COST)])
    tables = {
        "rows": kept_rows(losses),
        "curves": loss_curves(settings, losses),
        "heads": best_heads(measured[scores]),
    }
    return li.experiments.Analysis(tables, (), lambda _: {})


def train(out: Path, names: Sequence[str]) -> None:
    """Train the networks, two at a time, into directories of `out`."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        for name in names:
            settings = settings_of(name)
            experiment = li.experiments.Experiment(
                "scratch", settings, {"training": trainings}, analyse
            )
            model = StartingModel(settings)
            li.experiments.run(experiment, model, out=out / name, executor=pool, progress=True)


def contrasts() -> pd.DataFrame:
    """Differences of losses at the end, nats a token, with intervals over seeds and documents."""
    found = []
    for name, (arms, compared) in RUNS.items():
        rows = rows_where(rows_of((name, *compared)), condition=AS_TRAINED)
        resampling = settings_of(name).resampling
        for (blocks, entry), here in rows.groupby(["blocks", "entry"]):
            for scope in SCOPES:
                pairs = [pair for each in arms for pair in (("true", each), (each, "none"))]
                for arm, minus in pairs:
                    one, other = (rows_where(here, arm=each, scope=scope) for each in (arm, minus))
                    place = {"run": name, "blocks": blocks, "entry": entry, "scope": scope}
                    contrast = seed_contrast(one, other, resampling)
                    found.append({**place, "arm": arm, "minus": minus, **contrast.columns()})
    return pd.DataFrame(found)


def taken_away() -> pd.DataFrame:
    """What the writes do on tokens that cannot be copied, in networks of `WRITTEN`.

    The contrasts are the true minus the previous token as trained, each without its write minus as
    trained, and the true minus the previous token, both without their writes; only those that there
    are.
    """
    true, previous, without_true, without_previous = (
        (arm, condition) for condition in (AS_TRAINED, TAKEN_AWAY) for arm in ("true", "previous")
    )
    pairs = {
        "true - previous": (true, previous),
        "true, taken away": (without_true, true),
        "previous, taken away": (without_previous, previous),
        "both taken away": (without_true, without_previous),
    }
    found = []
    for network, (blocks, runs) in WRITTEN.items():
        here = rows_where(rows_of(runs), blocks=blocks, scope=OTHER)
        measured = dict(iter(here.groupby(["arm", "condition"])))
        found += [
            {"network": network, "compared": name}
            | seed_contrast(measured[one], measured[other], Resampling()).columns()
            for name, (one, other) in pairs.items()
            if {one, other} <= measured.keys()
        ]
    return pd.DataFrame(found)


def rows_of(runs: Sequence[str]) -> pd.DataFrame:
    """The losses of single windows at the end, of all networks of some runs.

    What was decoded freely is there if all of the seeds have it.
    """
    rows = pd.concat(li.experiments.load_result(RESULTS / run).tables["rows"] for run in runs)
    decoded = rows["scope"].isin(DECODED)
    in_all = rows.loc[decoded, "seed"].nunique() == rows["seed"].nunique()
    return rows if in_all else rows[~decoded]


def over_six_seeds(place: str) -> tuple[li.experiments.Finding, ...]:
    """The verdicts on these rows at a place of `SIX_SEEDS`, by the rule of the experiment."""
    runs = SIX_SEEDS[place]
    rows = rows_of(runs)
    stored = li.experiments.load_result(RESULTS / runs[-1])
    settings = from_values(li.experiments.ScratchSettings, stored.settings)
    settings = replace(settings, seeds=tuple(sorted(rows["seed"].unique().tolist())))
    steps = {each.arm: settings.optimization(each).steps for each in settings.trainings}
    return findings(settings, rows.assign(step=rows["arm"].map(steps)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        if len(sys.argv) < 3:
            sys.exit("usage: python docs/scratch_controls.py train OUT [RUN ...]")
        chosen = sys.argv[3:] or list(RUNS)
        if unknown := set(chosen) - set(RUNS):
            sys.exit(f"no run is called {', '.join(sorted(unknown))}; there are {', '.join(RUNS)}")
        train(Path(sys.argv[2]), chosen)
    else:
        print(contrasts().to_string(index=False))
        print(taken_away().to_string(index=False))
        for place in SIX_SEEDS:
            for finding in over_six_seeds(place):
                print(f"{finding.question}\n{finding.verdict}\n{finding.method}")
