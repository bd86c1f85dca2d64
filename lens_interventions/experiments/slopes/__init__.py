"""What could a weak write of the true token gain, at any layer, and could later tokens read it?

The slopes experiment: its settings, its stages, what it measures of a batch of texts, what slopes
and curvatures predict, its analysis and its figures. `rescue`, `heads` and `ceiling` each hold one
question whole: what is measured, its table, its verdicts and its figure. It may import `engine/`,
`design/` and what stands below experiments, and no other experiment. How a slope is measured
belongs to `intervention/slopes/`, how later tokens read a patch to `intervention/mechanism/`.
"""

from concurrent.futures import Executor
from pathlib import Path

from ..engine.model_source import Model
from ..engine.presets import Plan, Preset
from ..engine.results import Result
from .analysis import analyse
from .settings import SlopesSettings as SlopesSettings
from .stages import STAGES

_PLAN = Plan(
    "slopes",
    lambda preset, _bridge: SlopesSettings.preset(preset),
    lambda _settings, _bridge: STAGES,
    analyse,
)


def slopes(
    model: Model = None,
    preset: Preset = "quick",
    *,
    settings: SlopesSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> Result:
    """Bound what weak writes could gain at all layers, patch where most is promised, and ask why.

    The slope of the loss in the strength of a write is measured for every layer, source and mode,
    on natural text and on second copies of random tokens, with intervals that hold for the whole
    grid of a material at once. Curvatures at some layers say which strength is best and what it
    would gain. They choose cells on one half of the texts; patched runs measure these on the other.

    The bound is to first order, for writes of W_E as long as the residual times the strength, in
    the modes add and interpolate. It says nothing of stronger writes.

    Three more stages say why, and what learning could add. `rescue` hides tokens in place and
    writes them one position early; `head_slopes` tells through which kinds of heads a write would
    be read; `linear_ceiling` fits the steepest linear write, with the next token and without.

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
    `ValueError` for an unknown preset, or texts that the model cannot read at once.
    """
    return _PLAN.run(model, preset, settings, out=out, executor=executor, progress=progress)
