"""Does seeing the true token keep a model out of loops, and at what cost?

This package has the loops experiment's settings, stages, measurements (the cost of an arm, another
round of a repeated passage), choices of the selection half, tables and figures. It may import
`engine/`, `design/` and packages below experiments, and no other experiment. A new way out of loops
goes into `settings` and, if it is a new sampling rule, into `design.rules`.
"""

from concurrent.futures import Executor
from pathlib import Path

from ..design.rules import Rule as Rule
from ..engine.model_source import Model
from ..engine.presets import Plan, Preset
from ..engine.results import Result
from .analysis import analyse
from .settings import LoopsSettings as LoopsSettings
from .stages import STAGES

PLAN: Plan[LoopsSettings] = Plan(
    "loops",
    lambda preset, size: LoopsSettings.preset(preset, size.n_layers),
    lambda _settings, _bridge: STAGES,
    analyse,
)


def loops(
    model: Model = None,
    *,
    preset: Preset = "quick",
    settings: LoopsSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> Result:
    """Measure the loops of sampled text with the patch, its controls and other ways out of loops.

    A grid of layers, strengths and modes is searched on one half of the prompts, passages and
    prose. The cell with the fewest loops at an acceptable loss is then measured in full on the
    other half, and compared with no patch, the controls, repetition penalties, temperatures, top-p,
    min-p and contrasts of layers (DoLa), together with the cost of each in loss. Only arms that are
    named after a penalty have one. The experiment asks two more questions: how likely the model is
    to repeat a passage once more after k rounds, and at which layer the lens notices repetition.

    **Arguments:**

    - `model`: a bridge; a name or directory for `load_model`, by default the embedded model; or a
        function that returns a bridge. With an executor of other processes, it must not be a
        bridge.
    - `preset`: "quick" or "full"; ignored if `settings` are given.
    - `settings`: settings to use instead of a preset.
    - `out`: the directory of the run. A run that was stopped continues there and ends with the same
        numbers. Without it, only the result is kept.
    - `executor`: a `concurrent.futures.Executor` for the units of work; by default they run in this
        process.
    - `progress`: show a bar with the time left, stage by stage.

    Raises `RunDirectoryError` for a directory that is in use, is damaged or belongs to another run;
    `ValueError` for an unknown preset.
    """
    return PLAN.run(model, preset, settings, out=out, executor=executor, progress=progress)
