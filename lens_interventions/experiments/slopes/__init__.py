"""What could a weak write of the true token gain, at any layer, and could later tokens read it?

This package has the slopes experiment's settings, stages, measurements of a batch of texts,
predictions from slopes and curvatures, analysis and figures. `rescue`, `heads` and `ceiling` each
hold everything about one question: its measurement, table, verdicts and figure. It may import
`engine/`, `design/` and packages below experiments, and no other experiment. The measurement of
slopes belongs to `intervention/slopes/`, and that of how later tokens read a patch to
`intervention/mechanism/`.
"""

from concurrent.futures import Executor
from pathlib import Path

from ..engine.model_source import Model
from ..engine.presets import Plan, Preset
from ..engine.results import Result
from .analysis import analyse
from .settings import SlopesSettings as SlopesSettings
from .stages import STAGES

PLAN: Plan[SlopesSettings] = Plan(
    "slopes",
    lambda preset, _size: SlopesSettings.preset(preset),
    lambda _settings, _bridge: STAGES,
    analyse,
)


def slopes(
    model: Model = None,
    *,
    preset: Preset = "quick",
    settings: SlopesSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> Result:
    """Bound the gain of weak writes at all layers, patch where the promise is largest, and ask why.

    The slope of the loss in the strength of a write is measured for every layer, source and mode,
    on natural text and on second copies of random tokens, with intervals that hold for the whole
    grid of a material at once. Curvatures at some layers predict the best strength and its gain.
    They choose cells on one half of the texts, and patched runs measure these cells on the other
    half.

    The bound is to first order, for writes of one embedding, by default W_E, in the modes add and
    interpolate, whose length is that of the residual times the strength. It says nothing about
    stronger writes.

    Three more stages ask why, and what learning could add. `rescue` hides tokens in their own
    places and writes them one position early. `head_slopes` shows which kinds of heads would read a
    write. `linear_ceiling` fits the steepest linear write, with and without the next token.

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
    `ValueError` for an unknown preset, or texts that the model cannot read at once.
    """
    return PLAN.run(model, preset, settings, out=out, executor=executor, progress=progress)
