"""What does the next token add to a write that knows the current one?

The increment experiment: settings, stages with the trainings and their measurement, analysis and
figures. Text, losses and differences are those of `design/trained_patches/`. It may import
`engine/`, `design/` and what stands below experiments, and no other experiment.
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

_PLAN = Plan(
    "increment",
    lambda preset, bridge: IncrementSettings.preset(
        preset, int(bridge.cfg.n_layers), int(bridge.cfg.d_model)
    ),
    lambda _settings, _bridge: STAGES,
    analyse,
)


def increment(
    model: Model = None,
    preset: Preset = "quick",
    *,
    settings: IncrementSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> Result:
    """Learn a write of the current token, freeze it, and learn what the next token adds to it.

    A learned write gains a good deal from its bias and from the token that stands at the position,
    which is no news. So a base is learned first, `M1 e(x[i]) + b`, and frozen. On top of it, from
    zero, an increment `M2 e(x[i+1]) + c` is learned, and with the same seeds, steps and text
    increments of controls. Learning rates are those that do best in short trials; that of all
    increments is chosen with the true token. All are measured on documents that share
    no passage with the text trained on, and on random tokens said twice. A verdict is about the
    increment of the true token against the base alone and every control, paired; documents and
    seeds are both resampled.

    **Arguments:**

    - `model`: a bridge; a name or directory for `load_model`, by default the embedded model; or a
        function that returns a bridge. With processes or a cluster as executor, not a bridge.
    - `preset`: "quick" or "full"; not read where `settings` are given.
    - `settings`: what to measure, in place of a preset.
    - `out`: directory of the run. A run that was stopped goes on there, from the last checkpoint of
        the training that it was at, and ends in the same numbers. Without it nothing is kept but
        the result.
    - `executor`: any `concurrent.futures.Executor`, which runs the trainings; by default this
        process does.
    - `progress`: show a bar with the time left.

    Raises `RunDirectoryError` for a directory that is in use, damaged or of another run, and
    `ValueError` for an unknown preset, a layer that the model does not have, or too little text;
    `NotImplementedError` for a model that the two streams do not fit.
    """
    try:
        return _PLAN.run(model, preset, settings, out=out, executor=executor, progress=progress)
    finally:
        forget_residuals()
