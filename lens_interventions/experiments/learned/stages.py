"""The stages: train and evaluate every source; sweep layers, then ranks; inspect the writes.

The selection half chooses the best layer, the best rank, and the control whose samples are shown.
The reported numbers are those of the report half.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ...model.user_warnings import warn_user
from ..design.conditions import Arm
from ..design.kept_writes import encoded_write
from ..design.sequences import REPORT, SELECTION, batches
from ..design.totals import Measure, totals_of
from ..engine.results import Tables
from ..engine.run import Stage
from ..engine.work_units import Unit
from .evaluation import measure_writes, over_seeds
from .inspection import (
    measure_ablation,
    measure_attention,
    measure_directions,
    measure_geometry,
    shows_attention,
)
from .sampled import require_samples_fit, sampling_units
from .settings import LearnedSettings, trained_sources
from .splits import measured_sequences, training_texts
from .writes import TABLE, Training, measure_training, written

_COPIES = Measure("loss")


def stages_of(settings: LearnedSettings, bridge: TransformerBridge) -> dict[str, Stage]:
    """The stages by name, in order; those of the sweeps only if the settings have any.

    Raises `ValueError` for a layer or rank that the model does not have, or samples longer than it
    reads.
    """
    settings.require_fit(int(bridge.cfg.n_layers), int(bridge.cfg.d_model))
    require_samples_fit(bridge, settings)
    swept: dict[str, Stage] = {}
    if settings.sweep_layers:
        swept |= {"training, layers": train_layers, "layers": measure_layers}
    if settings.sweep_ranks:
        swept |= {"training, ranks": train_ranks, "ranks": measure_ranks}
    if swept:
        swept["best of the sweeps"] = measure_best
    main = {"training": train, "evaluation": evaluate, "sampling": sample}
    return {**main, **swept, "inspection": inspect_writes}


def main_trainings(settings: LearnedSettings) -> list[Training]:
    """Every source with every seed."""
    return [
        Training(source, settings.layer, settings.rank, settings.steps, seed)
        for seed in settings.seeds
        for source in trained_sources()
    ]


def layer_trainings(settings: LearnedSettings) -> list[Training]:
    """The trainings of the sweep over layers."""
    return [
        training
        for layer in settings.sweep_layers
        for training in _swept(settings, layer, settings.rank)
    ]


def rank_trainings(settings: LearnedSettings, layer: int) -> list[Training]:
    """The trainings of the sweep over ranks at a layer."""
    return [t for rank in settings.sweep_ranks for t in _swept(settings, layer, rank)]


def _swept(settings: LearnedSettings, layer: int, rank: int | None) -> list[Training]:
    """The trainings of a sweep at one layer and rank."""
    return [
        Training(source, layer, rank, settings.sweep_steps, settings.sweep_seed)
        for source in ("true", *settings.sweep_controls)
    ]


def best_training(settings: LearnedSettings, rows: Tables, of: Sequence[Training]) -> Training:
    """The training with the true source that beats its best control by most.

    It is judged on the selection half of the repeated random tokens.
    """
    totals = totals_of(over_seeds(rows["induction"]), _COPIES, SELECTION)

    def lead(training: Training) -> float:
        return totals.lead(training.arm, swept_controls(settings, training))

    return max((training for training in of if training.source == "true"), key=lead)


def swept_controls(settings: LearnedSettings, training: Training) -> list[Arm]:
    """The arms of the controls that the sweeps train like `training`."""
    return [replace(training.arm, source=source) for source in settings.sweep_controls]


def best_layer(settings: LearnedSettings, rows: Tables) -> int:
    """The layer of the best training of the sweep over layers."""
    return best_training(settings, rows, layer_trainings(settings)).layer


def best_of_sweeps(settings: LearnedSettings, rows: Tables) -> Training:
    """The best training of the sweep over ranks; without one, of the sweep over layers."""
    if settings.sweep_ranks:
        of = rank_trainings(settings, best_layer(settings, rows))
        return best_training(settings, rows, of)
    return best_training(settings, rows, layer_trainings(settings))


def train(bridge: TransformerBridge, settings: LearnedSettings, _rows: Tables) -> list[Unit]:
    """The trainings of the main comparison."""
    return _training_units(bridge, settings, main_trainings(settings))


def evaluate(bridge: TransformerBridge, settings: LearnedSettings, rows: Tables) -> list[Unit]:
    """Both halves of all material under every source."""
    trainings = main_trainings(settings)
    tables = ("induction", "templates", "text")
    return [
        unit
        for half in (SELECTION, REPORT)
        for unit in _measure_units(bridge, settings, rows, trainings, half, "main", tables)
    ]


def sample(bridge: TransformerBridge, settings: LearnedSettings, rows: Tables) -> list[Unit]:
    """Free running under every source, on both halves."""
    writes = _parameters(main_trainings(settings), written(rows[TABLE]))
    sequences = measured_sequences(bridge, settings)["induction"]
    return sampling_units(bridge, settings, writes, sequences)


def train_layers(bridge: TransformerBridge, settings: LearnedSettings, _rows: Tables) -> list[Unit]:
    """Trainings of fewer steps at other layers."""
    return _training_units(bridge, settings, layer_trainings(settings))


def measure_layers(
    bridge: TransformerBridge, settings: LearnedSettings, rows: Tables
) -> list[Unit]:
    """The selection half under the writes of the sweep over layers."""
    trainings = layer_trainings(settings)
    return _measure_units(bridge, settings, rows, trainings, SELECTION, "layers", _SWEPT)


def train_ranks(bridge: TransformerBridge, settings: LearnedSettings, rows: Tables) -> list[Unit]:
    """Trainings with other ranks at the best layer."""
    return _training_units(bridge, settings, _new_ranks(settings, rows))


def measure_ranks(bridge: TransformerBridge, settings: LearnedSettings, rows: Tables) -> list[Unit]:
    """The selection half under the writes of the sweep over ranks."""
    trainings = _new_ranks(settings, rows)
    return _measure_units(bridge, settings, rows, trainings, SELECTION, "ranks", _SWEPT)


def measure_best(bridge: TransformerBridge, settings: LearnedSettings, rows: Tables) -> list[Unit]:
    """The report half under the best of the sweeps and its controls."""
    best = best_of_sweeps(settings, rows)
    trainings = _swept(settings, best.layer, best.rank)
    return _measure_units(bridge, settings, rows, trainings, REPORT, "best", _SWEPT)


def inspect_writes(
    bridge: TransformerBridge, settings: LearnedSettings, rows: Tables
) -> list[Unit]:
    """The true source's writes of the main comparison, inspected."""
    sequences = measured_sequences(bridge, settings)["induction"]
    texts = [text for text in sequences if text.half == REPORT][: settings.read_sequences]
    writes = written(rows[TABLE])
    on_texts: dict[str, Callable[..., pd.DataFrame]] = {"ablation": measure_ablation}
    if shows_attention(bridge, settings.layer):
        on_texts["attention"] = measure_attention
    else:
        warn_user(
            f"{bridge.cfg.architecture} does not show its attention: that part of the inspection "
            "is left out",
        )
    units = []
    for training in main_trainings(settings):
        if training.source != "true":
            continue
        write = _parameters([training], writes)[training.name]
        name = f"seed-{training.seed}"
        of_map = {"write": write, "n": settings.directions}
        units += [
            Unit("directions", name, measure_directions, of_map),
            Unit("geometry", name, measure_geometry, of_map),
        ]
        units += [
            Unit(
                table,
                f"{name}-{text.number:03}",
                function,
                {"write": write, "sequence": text.values()},
            )
            for table, function in on_texts.items()
            for text in texts
        ]
    return units


# Sweeps leave out the templates, which show nothing unless there are many.
_SWEPT = ("induction", "text")


def _new_ranks(settings: LearnedSettings, rows: Tables) -> list[Training]:
    """The trainings of the sweep over ranks that the sweep over layers has not made."""
    known = layer_trainings(settings)
    trainings = rank_trainings(settings, best_layer(settings, rows))
    return [training for training in trainings if training not in known]


def _training_units(
    bridge: TransformerBridge, settings: LearnedSettings, trainings: Sequence[Training]
) -> list[Unit]:
    texts = training_texts(bridge, settings, measured_sequences(bridge, settings)["text"])
    return [
        Unit(
            TABLE,
            training.name,
            measure_training,
            {
                "training": training.columns(),
                "texts": texts,
                "options": asdict(settings.options),
            },
            keeps_file=True,
        )
        for training in trainings
    ]


def _measure_units(
    bridge: TransformerBridge,
    settings: LearnedSettings,
    rows: Tables,
    trainings: Sequence[Training],
    half: str,
    name: str,
    tables: Iterable[str],
) -> list[Unit]:
    if not trainings:
        return []
    material = settings.material
    writes = _parameters(trainings, written(rows[TABLE]))
    sequences = measured_sequences(bridge, settings)
    units = []
    for table in tables:
        for index, batch in enumerate(batches(sequences[table], half, material.batch)):
            parameters: dict[str, Any] = {
                "table": table,
                "writes": writes,
                "sequences": [text.values() for text in batch],
            }
            if table == "text":
                parameters |= material.divisions
            units.append(Unit(table, f"{name}-{half}-{index:03}", measure_writes, parameters))
    return units


def _parameters(
    trainings: Sequence[Training], writes: Mapping[Training, bytes]
) -> dict[str, dict[str, Any]]:
    return {
        training.name: {**training.columns(), "write": encoded_write(writes[training])}
        for training in trainings
    }
