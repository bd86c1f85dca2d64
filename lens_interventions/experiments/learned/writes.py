"""Trainings and their writes, as values for units, rows and parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ...intervention.learned_write import LearnedWrite
from ...intervention.patch import NextTokenPatch
from ...intervention.training.options import TrainingOptions
from ...intervention.training.train_patch import train_patch
from ..design.conditions import NO_PATCH, Arm, PatchSettings
from ..design.kept_writes import decoded_write, read_write, write_bytes
from ..design.shared_residuals import shared_residuals
from ..engine.json_values import from_values
from ..engine.run_directory import read_tables
from ..engine.run_header import RunDirectoryError
from ..engine.work_units import unit_kind

TABLE = "training"


@dataclass(frozen=True)
class Training:
    """One training.

    Attributes:
        source: the source that the write was trained with.
        layer: where.
        rank: the rank of the map; None for a full map.
        steps: how many.
        seed: the seed of its start, the order of the text and random sources.
    """

    source: str
    layer: int
    rank: int | None
    steps: int
    seed: int

    @property
    def name(self) -> str:
        """A name that is unique to the training and fit for a file."""
        rank = "full" if self.rank is None else f"rank{self.rank}"
        return f"{self.source}-layer{self.layer}-{rank}-{self.steps}steps-seed{self.seed}"

    @property
    def mode(self) -> str:
        """The mode of the arm, which trainings that differ only in seed share."""
        rank = "full rank" if self.rank is None else f"rank {self.rank}"
        return f"{rank}, {self.steps} steps"

    @property
    def arm(self) -> Arm:
        """The condition, without the seed."""
        return Arm(self.source, self.layer, 1.0, self.mode)

    @property
    def own_arm(self) -> Arm:
        """The condition with this seed."""
        return Arm(self.source, self.layer, 1.0, f"{self.mode}, seed {self.seed}")

    def columns(self) -> dict[str, Any]:
        """The training as columns of a row; a full rank is 0."""
        return {**asdict(self), "rank": self.rank or 0}

    @classmethod
    def from_columns(cls, columns: Mapping[Any, Any]) -> "Training":
        """The training that `columns` describes."""
        layer, rank, steps, seed = (int(columns[c]) for c in ("layer", "rank", "steps", "seed"))
        return cls(str(columns["source"]), layer, rank or None, steps, seed)


@dataclass(frozen=True)
class LearnedPatches(PatchSettings):
    """Settings whose arms stand for trainings, and whose patches were learned.

    Attributes:
        writes: the write of each training.
    """

    writes: Mapping[Training, LearnedWrite] = field(default_factory=dict)

    def patches(
        self,
        bridge: TransformerBridge,  # noqa: ARG002
        arms: Sequence[Arm],
    ) -> list[NextTokenPatch | None]:
        """The patches that were trained; each draws with its training's seed."""
        by_arm = {
            training.own_arm: write.patch(seed=training.seed)
            for training, write in self.writes.items()
        }
        return [None if arm == NO_PATCH else by_arm[arm] for arm in arms]


@unit_kind("training")
def measure_training(
    bridge: TransformerBridge,
    training: Mapping[str, Any],
    texts: Sequence[Sequence[int]],
    options: Mapping[str, Any],
    file: Path,
) -> pd.DataFrame:
    """Train a write: a row for each step, one for each evaluation and one for the write.

    `kind` is "step", "held-out" or "write". Losses are in nats per token; `write` has a file's
    bytes. `file` holds the training's checkpoint.
    """
    made = Training.from_columns(training)
    result = train_patch(
        bridge,
        [list(text) for text in texts],
        layer=made.layer,
        rank=made.rank,
        source=made.source,
        steps=made.steps,
        seed=made.seed,
        options=from_values(TrainingOptions, options),
        checkpoint=file,
        save_every=options["evaluate_every"],
        store=shared_residuals(bridge, made.layer),
        progress=False,
    )
    last = {"step": result.settings["best_step"], "write": write_bytes(result.write)}
    rows = pd.concat(
        [
            result.curve.assign(kind="step"),
            result.held_out.assign(kind="held-out"),
            pd.DataFrame([{**last, "kind": "write"}]),
        ],
        ignore_index=True,
    )
    return rows.assign(**made.columns())


def parse_writes(writes: Mapping[str, Mapping[str, Any]]) -> dict[Training, LearnedWrite]:
    """Trainings and their writes, from parameters `{name: {**columns, "write": text}}`."""
    return {
        Training.from_columns(values): decoded_write(values["write"]) for values in writes.values()
    }


def written(rows: pd.DataFrame) -> dict[Training, bytes]:
    """The write's bytes of every training in the table of trainings."""
    kept = rows[rows["kind"] == "write"]
    return {Training.from_columns(row): bytes(row["write"]) for row in kept.to_dict("records")}


def trained_writes(directory: str | Path) -> dict[Training, LearnedWrite]:
    """The writes of a run of `learned`, finished or not, by training.

    `write.patch()` returns a `NextTokenPatch` for `generate` and the rest of the library.

    Raises `RunDirectoryError` if `directory` is not a run or has no trained writes.
    """
    tables = read_tables(directory)
    if TABLE not in tables:
        raise RunDirectoryError(f"{directory} holds no trained writes")
    return {training: read_write(data) for training, data in written(tables[TABLE]).items()}
