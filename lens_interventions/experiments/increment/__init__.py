"""What does the next token add to a write that knows the current one?

The increment experiment: settings, stages with the trainings and their measurement, analysis and
figures. Text, losses and differences are those of `design/trained_patches/`. It may import
`engine/`, `design/` and packages below experiments, and no other experiment.
"""

from concurrent.futures import Executor
from pathlib import Path

from ..design.shared_residuals import forget_residuals
from ..engine.model_source import Model
from ..engine.presets import Plan, Preset
from ..engine.results import Result
from .analysis import analyse
from .settings import IncrementSettings as IncrementSettings
from .stages import STAGES

PLAN: Plan[IncrementSettings] = Plan(
    "increment",
    lambda preset, size: IncrementSettings.preset(preset, size.n_layers, size.d_model),
    lambda _settings, _bridge: STAGES,
    analyse,
    forget=forget_residuals,
)


def increment(
    model: Model = None,
    *,
    preset: Preset = "quick",
    settings: IncrementSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> Result:
    """Learn a write of the current token, freeze it, and learn the increment of the next token.

    A learned write gains a good deal from its bias and from the current token, which is no news. So
    a base, `M1 e(x[i]) + b`, is learned first and frozen. On top of it, an increment
    `M2 e(x[i+1]) + c` is learned from zero, and with the same seeds, steps and text the increments
    of controls. Short trials choose the learning rates; that of all increments is chosen with the
    true token. All writes are measured on documents that share no passage with the training text,
    and on random tokens that are repeated once. A verdict compares the increment of the true token
    with the base alone and every control, paired; documents and seeds are both resampled.

    **Arguments:**

    - `model`: a bridge; a name or directory for `load_model`, by default the embedded model; or a
        function that returns a bridge. With an executor of other processes, it must not be a
        bridge.
    - `preset`: "quick" or "full"; ignored if `settings` are given.
    - `settings`: settings to use instead of a preset.
    - `out`: the directory of the run. A run that was stopped continues there, from the last
        checkpoint of its current training, and ends with the same numbers. Without it, only the
        result is kept.
    - `executor`: a `concurrent.futures.Executor` for the trainings; by default they run in this
        process.
    - `progress`: show a bar with the time left.

    Raises `RunDirectoryError` for a directory that is in use, is damaged or belongs to another run;
    `ValueError` for an unknown preset, a layer that the model does not have, or too little text;
    `NotImplementedError` for a model that the two streams do not fit.
    """
    return PLAN.run(model, preset, settings, out=out, executor=executor, progress=progress)
