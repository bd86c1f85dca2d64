"""Does it help to learn what to do with the true next token?

This package has the settings and stages of the experiment with learned writes, the trainings, their
evaluation, the inspection of the learned maps, the analysis and the figures. It may import
`engine/`, `design/` and packages below experiments, and no other experiment. A new question goes
into `questions`, a new look at the learned map into `inspection`.
"""

from concurrent.futures import Executor
from pathlib import Path

from ..design.shared_residuals import forget_residuals
from ..engine.model_source import Model
from ..engine.presets import Plan, Preset
from ..engine.results import Result
from .analysis import analyse
from .settings import LearnedSettings as LearnedSettings
from .stages import stages_of
from .writes import Training as Training
from .writes import trained_writes as trained_writes

PLAN: Plan[LearnedSettings] = Plan(
    "learned",
    lambda preset, size: LearnedSettings.preset(preset, size.n_layers, size.d_model),
    stages_of,
    analyse,
    forget=forget_residuals,
)


def learned(
    model: Model = None,
    *,
    preset: Preset = "quick",
    settings: LearnedSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> Result:
    """Train writes with the true next token and with controls, and measure what each gains.

    A write `M e + b` into one layer is trained on one corpus, with everything else frozen: with the
    embedding `e` of the true next token, and with each control, one of which is no token at all.
    All trainings make as many steps on the same text in the same order, with several seeds. All
    writes are measured on text of other kinds, on documents of the same kind, on random tokens that
    are repeated once and on words that are due again. One half of the material chooses in the
    sweeps, and the other half gives the reported numbers. A verdict compares the true source with
    no patch and every control, paired; seeds and sequences are both resampled. Then the true
    source's writes are inspected: the structure of the map, the attention that it changes, and its
    gain at the tokens that it should help.

    `trained_writes(out)` returns the writes.

    **Arguments:**

    - `model`: a bridge; a name or directory for `load_model`, by default the embedded model; or a
        function that returns a bridge. With an executor of other processes, it must not be a
        bridge.
    - `preset`: "quick" or "full"; ignored if `settings` are given.
    - `settings`: settings to use instead of a preset.
    - `out`: the directory of the run. A run that was stopped continues there, from the last
        checkpoint of its current training, and ends with the same numbers. Without it, only the
        result is kept.
    - `executor`: a `concurrent.futures.Executor` for the units of work; by default they run in this
        process.
    - `progress`: show a bar with the time left, stage by stage.

    Raises `RunDirectoryError` for a directory that is in use, is damaged or belongs to another run;
    `ValueError` for an unknown preset, layers or ranks that the model does not have, a half of the
    material without sequences or a corpus without text; `NotImplementedError` for a model that the
    two streams do not fit.
    """
    return PLAN.run(model, preset, settings, out=out, executor=executor, progress=progress)
