"""The stages: trainings, which keep their state in the run's directory, then knockouts of each."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ..design.rows_of_sums import sum_rows
from ..design.small_networks.corpus import corpus_of_parameter, corpus_parameter
from ..design.small_networks.shape import Shape
from ..design.small_networks.training import (
    Optimization,
    Record,
    TrainingRun,
    load_network,
    stream_batches,
)
from ..engine.json_values import from_values
from ..engine.results import Tables
from ..engine.run import Stage
from ..engine.run_directory import unit_file
from ..engine.work_units import Unit, unit_kind
from .arms import UNWRITTEN, ScratchTraining
from .cost import step_flops
from .evaluation import measure
from .knockouts import knockout_rows
from .material import material_of
from .network import Network
from .settings import ScratchSettings
from .training import scratch_run

TABLE, KNOCKOUTS = "training", "knockouts"

COST = "operations of a step"
"""The scope of the row that tells what a step costs."""


def training_stage(
    _bridge: TransformerBridge, settings: ScratchSettings, _rows: Tables
) -> Sequence[Unit]:
    """All trainings."""
    corpus = corpus_parameter(settings.corpus)
    return [
        Unit(
            TABLE,
            training.name,
            measure_training,
            {
                "training": training.columns(),
                "shape": asdict(settings.shape_of(training.blocks)),
                "optimization": asdict(settings.optimization(training)),
                "batch": settings.batch,
                "corpus": corpus,
                "curve_windows": settings.windows[0],
                "copies": settings.copies,
                "surprising": settings.surprising,
                "decoded": settings.decoded,
            },
            keeps_file=True,
        )
        for training in settings.trainings
    ]


def knockout_stage(
    _bridge: TransformerBridge, settings: ScratchSettings, _rows: Tables
) -> Sequence[Unit]:
    """The knockouts of all networks that were trained with a write."""
    corpus = corpus_parameter(settings.corpus)
    return [
        Unit(
            KNOCKOUTS,
            training.name,
            measure_knockouts,
            {
                "training": training.columns(),
                "shape": asdict(settings.shape_of(training.blocks)),
                "corpus": corpus,
                "copies": settings.copies,
                "surprising": settings.surprising,
            },
            keeps_file=True,  # It is never written: its path tells where the networks are.
        )
        for training in settings.trainings
        if training.arm not in UNWRITTEN
    ]


STAGES: dict[str, Stage] = {"training": training_stage, "knockouts": knockout_stage}


@unit_kind("training from scratch")
def measure_training(
    _bridge: TransformerBridge,
    training: Mapping[str, Any],
    shape: Mapping[str, Any],
    optimization: Mapping[str, Any],
    batch: int,
    corpus: Mapping[str, Any],
    curve_windows: int,
    copies: int,
    surprising: float,
    decoded: int,
    file: Path,
) -> pd.DataFrame:
    """Train a network: rows as in `evaluation.measure` at each point, and the cost of a step.

    `file` holds the state during training, and then the network.

    Raises `ValueError` if the corpus here differs from that where the run was started.
    """
    settings, text = corpus_of_parameter(corpus)
    made = ScratchTraining(**training)
    options = from_values(Optimization, optimization)
    size = from_values(Shape, shape)
    material = material_of(text, surprising=surprising, n_copies=copies, seed=settings.seed)
    batches = stream_batches(text.training, settings.context, batch, made.seed)

    def evaluate(run: TrainingRun[Network]) -> list[Record]:
        final = run.step == options.steps
        n_windows = len(material.windows) if final else curve_windows
        return measure(run.network, made, material, n_windows, final=final, n_decoded=decoded)

    run = scratch_run(made, size, options, batches)
    known = {
        "batch": batch,
        "tokens": corpus["tokens"],
        "curve_windows": curve_windows,
        "copies": copies,
        "surprising": surprising,
        "decoded": decoded,
    }
    run.to_the_end(evaluate, file, known)
    entry = None if made.arm in UNWRITTEN else made.entry
    named = {"step": options.steps, "condition": "", "scope": COST}
    cost = sum_rows(named, [0], [float(step_flops(size, entry, batch))], [1])
    return pd.DataFrame([*run.records, *cost]).assign(**made.columns())


@unit_kind("knockouts of a network from scratch")
def measure_knockouts(
    _bridge: TransformerBridge,
    training: Mapping[str, Any],
    shape: Mapping[str, Any],
    corpus: Mapping[str, Any],
    copies: int,
    surprising: float,
    file: Path,
) -> pd.DataFrame:
    """The rows of `knockout_rows` of the network that its training left in the run's directory.

    Raises `FileNotFoundError` if it is not there any more.
    """
    settings, text = corpus_of_parameter(corpus)
    made = ScratchTraining(**training)
    network = Network(from_values(Shape, shape), made.entry, made.seed)
    trained = unit_file(file.parents[2], TABLE, made.name)
    if not trained.is_file():
        raise FileNotFoundError(
            f"the network {trained} is gone: remove the rows of its training, rows/{TABLE}/"
            f"{made.name}.parquet, to train it again"
        )
    load_network(network, trained)
    material = material_of(text, surprising=surprising, n_copies=copies, seed=settings.seed)
    rows = pd.DataFrame(knockout_rows(network, made, material))
    return rows.assign(**made.columns())
