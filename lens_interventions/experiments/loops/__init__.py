"""Does seeing the true token keep a model out of loops, and at what cost?"""

from concurrent.futures import Executor
from pathlib import Path

from ..design.rules import Rule as Rule
from ..engine.model_source import Model, ModelSource
from ..engine.results import Result
from ..engine.run import Experiment, run
from .analysis import analyse
from .settings import LoopsSettings as LoopsSettings
from .settings import Preset as Preset
from .stages import report, search


def loops(
    model: Model = None,
    preset: Preset = "quick",
    *,
    settings: LoopsSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> Result:
    """Loops of sampled text with the patch, its controls and other ways out, and what each costs.

    A grid of layers, strengths and modes is searched on one half of the prompts, passages and
    prose; the cell with the fewest loops at a bearable loss is then measured in full, on the other
    half, against no patch, five controls, repetition penalties, temperatures, top-p and min-p. No
    arm has a sampling penalty but those named after one. Also: how likely the model is to go round
    once more after a passage was said k times, and at which layer the lens notices repetition.

    **Arguments:**

    - `model`, `out`, `executor`, `progress`: as in `run`.
    - `preset`: "quick" or "full", unless `settings` are given.

    Raises what `run` raises, `ValueError` for an unknown preset.
    """
    if settings is None:
        n_layers = int(ModelSource(model).bridge().cfg.n_layers)
        settings = LoopsSettings.preset(preset, n_layers)
    return run(
        Experiment("loops", settings, {"search": search, "report": report}, analyse),
        model,
        out=out,
        executor=executor,
        progress=progress,
    )
