"""Can a pretrained model learn to read the true next token?

The reader experiment: settings, the stage with the trainings and their measurement, analysis and
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
from .settings import ReaderSettings as ReaderSettings
from .stages import STAGES

PLAN: Plan[ReaderSettings] = Plan(
    "reader",
    lambda preset, size: ReaderSettings.preset(preset, size.n_layers),
    lambda _settings, _bridge: STAGES,
    analyse,
    forget=forget_residuals,
)


def reader(
    model: Model = None,
    *,
    preset: Preset = "quick",
    settings: ReaderSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> Result:
    """Train the blocks above a write to read it, with the true token and with controls.

    The write into one layer is a plain patch, or is learned too. The attention from there up, and
    the MLPs if the settings say so, are adapted by low-rank updates, as `train_patch(adapt=...)`
    does: with the true next token, with controls, and without any write. All trainings make as many
    steps on the same text in the same order, with several seeds. Readers are measured on documents
    that share no passage with the training text, on copyable tokens (those that complete a pair
    from earlier in the window) and on other tokens, and on random tokens that are repeated once. A
    verdict compares the true token with the reader alone and every control, paired; documents and
    seeds are both resampled.

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
    `NotImplementedError` for a model that the two streams do not fit, or whose blocks have no
    matrices that can be adapted.
    """
    return PLAN.run(model, preset, settings, out=out, executor=executor, progress=progress)
