"""The stage: every training is one unit, which keeps its state in the run's directory."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ..design.small_networks.bridges import bridge_of
from ..design.small_networks.corpus import corpus_of, corpus_of_parameter, corpus_parameter
from ..design.small_networks.shape import Shape
from ..design.small_networks.training import Optimization, Record, TrainingRun, stream_batches
from ..engine.json_values import from_values
from ..engine.results import Tables
from ..engine.run import Stage
from ..engine.work_units import Unit, unit_kind
from .arms import Training
from .evaluation import measure, recovered
from .network import LayeredNetwork
from .settings import UpbringingSettings

TABLE = "training"


@dataclass(frozen=True)
class StartingModel:
    """The model of a run: its first network before the first step, with its tokenizer.

    Every process of a run makes its own.

    Attributes:
        settings: the settings of the run.
    """

    settings: UpbringingSettings

    def __call__(self) -> TransformerBridge:
        """The bridge."""
        first = self.settings.trainings[0]
        network = LayeredNetwork(self.settings.shape, tied=first.tied, seed=first.seed)
        tokenizer = corpus_of(self.settings.corpus).tokenizer
        return bridge_of(network.model, tokenizer, "upbringing")


def training_stage(
    _bridge: TransformerBridge, settings: UpbringingSettings, _rows: Tables
) -> Sequence[Unit]:
    """All trainings."""
    corpus = corpus_parameter(settings.corpus)
    return [
        Unit(
            TABLE,
            training.name,
            measure_training,
            {
                "training": asdict(training),
                "shape": asdict(settings.shape),
                "optimization": asdict(settings.optimization(training)),
                "batch": settings.batch,
                "corpus": corpus,
                "curve_windows": settings.windows[0],
                "fitted_windows": settings.fitted_windows,
            },
            keeps_file=True,
        )
        for training in settings.trainings
    ]


STAGES: dict[str, Stage] = {"training": training_stage}


@unit_kind("upbringing of a small network")
def measure_training(
    _bridge: TransformerBridge,
    training: Mapping[str, Any],
    shape: Mapping[str, Any],
    optimization: Mapping[str, Any],
    batch: int,
    corpus: Mapping[str, Any],
    curve_windows: int,
    fitted_windows: int,
    file: Path,
) -> pd.DataFrame:
    """Train a network: rows as in `evaluation.measure` at each point, and `recovered` at the end.

    `file` holds the state during training, and then the network.

    Raises `ValueError` if the corpus here differs from that where the run was started.
    """
    settings, text = corpus_of_parameter(corpus)
    made = Training(**training)
    options, size = from_values(Optimization, optimization), from_values(Shape, shape)

    def evaluate(run: TrainingRun[LayeredNetwork]) -> list[Record]:
        final = run.step == options.steps
        return measure(run.network, text, len(text.windows) if final else curve_windows)

    run = TrainingRun(
        LayeredNetwork(size, tied=made.tied, seed=made.seed),
        made.loss,
        options,
        stream_batches(text.training, settings.context, batch, made.seed),
        {**training, **shape},
    )
    run.to_the_end(
        evaluate, file, {"batch": batch, "tokens": corpus["tokens"], "curve_windows": curve_windows}
    )
    fitted, _ = stream_batches(text.training, settings.context, fitted_windows, settings.seed)(0)
    bridge = bridge_of(run.network.model, text.tokenizer, made.name)
    kept = [{"step": options.steps, **record} for record in recovered(bridge, text, fitted)]
    return pd.DataFrame([*run.records, *kept]).assign(**training)
