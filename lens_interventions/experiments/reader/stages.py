"""The stage: a unit for the model as it is, and one for every training."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from transformer_lens.model_bridge import TransformerBridge

from ...intervention.training.checks import check_adapter_rank
from ...model.points import require_blocks
from ..design.trained_patches.losses import measure_untrained
from ..design.trained_patches.own_texts import writing_stage
from ..design.trained_patches.splits import to_measure, to_train, windows_by_part
from ..design.trained_patches.trainings import training_units
from ..engine.results import Tables
from ..engine.run import Stage
from ..engine.work_units import Unit
from .measurements import measure_reader
from .settings import ReaderSettings

TABLE = "training"


def training_stage(
    bridge: TransformerBridge, settings: ReaderSettings, rows: Tables
) -> Sequence[Unit]:
    """The model as it is, and all trainings.

    Raises `ValueError` for a layer or rank that the model does not have, or too little text.
    """
    require_blocks([settings.layer], int(bridge.cfg.n_layers))
    check_adapter_rank(bridge, settings.rank)
    windows = windows_by_part(bridge, settings)
    material = to_measure(bridge, settings, windows)
    common = {
        "options": asdict(settings.options),
        "texts": to_train(windows, rows),
        "material": material,
    }
    same = {
        "layer": settings.layer,
        "strength": settings.strength,
        "rank": settings.rank,
        "adapt": settings.adapt,
        "adapter_rank": settings.rank,
        "steps": settings.steps,
    }
    return [
        Unit(TABLE, "untrained", measure_untrained, material),
        *training_units(TABLE, settings, measure_reader, same, common),
    ]


STAGES: Mapping[str, Stage] = {"own texts": writing_stage, "training": training_stage}
