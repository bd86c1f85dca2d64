"""Does it help to learn what to do with the true next token?

The experiment with learned writes: its settings and stages, the trainings, their evaluation, the
inspection of what was learned, its analysis and its figures. It may import `engine/`, `design/` and
what stands below experiments, and no other experiment. A new question goes into `questions`, a new
look at the learned map into `inspection`.
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

_PLAN = Plan(
    "learned",
    lambda preset, bridge: LearnedSettings.preset(
        preset, int(bridge.cfg.n_layers), int(bridge.cfg.d_model)
    ),
    stages_of,
    analyse,
)


def learned(
    model: Model = None,
    preset: Preset = "quick",
    *,
    settings: LearnedSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> Result:
    """Train writes with the true next token and with controls, and measure what each is good for.

    A write `M e + b` into one layer is trained on one corpus, with everything else frozen: with the
    embedding `e` of the true next token, and with each control, one of which is no token at all.
    All make as many steps on the same text in the same order, with several seeds. All are measured
    on text of other kinds, on documents of the same kind, on random tokens said twice and on words
    that come again. One half of the material chooses in the sweeps; the other half reports. A
    verdict is about the true source against no patch and every control, paired; seeds and
    sequences are both resampled. Then the true source's writes are inspected: what the map is like,
    which attention it changes, and what it is worth at the tokens that it should help.

    `trained_writes(out)` gives the writes.

    **Arguments:**

    - `model`: a bridge; a name or directory for `load_model`, by default the embedded model; or a
        function that returns a bridge. With processes or a cluster as executor, not a bridge.
    - `preset`: "quick" or "full"; not read where `settings` are given.
    - `settings`: what to measure, in place of a preset.
    - `out`: directory of the run. A run that was stopped goes on there and ends in the same
        numbers. Without it nothing is kept but the result.
    - `executor`: any `concurrent.futures.Executor`, which runs the units of work; by default this
        process does.
    - `progress`: show a bar with the time left, stage by stage.

    Raises `RunDirectoryError` for a directory that is in use, damaged or of another run, and
    `ValueError` for an unknown preset, layers or ranks that the model does not have, a half of the
    material without sequences or a corpus without text; `NotImplementedError` for a model that the
    two streams do not fit.
    """
    try:
        return _PLAN.run(model, preset, settings, out=out, executor=executor, progress=progress)
    finally:
        forget_residuals()
