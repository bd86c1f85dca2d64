"""Does seeing the true token keep a model out of loops, and at what cost?

The loops experiment: its settings, its stages, what it measures (the cost of an arm, another round
of a repeated passage), what the selection half chooses, its tables and its figures. It may import
`engine/`, `design/` and what stands below experiments, and no other experiment. A new way out of
loops goes into `settings` and, if it is a new sampling rule, into `design.rules`.
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

_PLAN = Plan(
    "loops",
    lambda preset, bridge: LoopsSettings.preset(preset, int(bridge.cfg.n_layers)),
    lambda _settings, _bridge: STAGES,
    analyse,
)


def loops(
    model: Model = None,
    preset: Preset = "quick",
    *,
    settings: LoopsSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> Result:
    """Measure the loops of sampled text with the patch, its controls and other ways out of loops.

    A grid of layers, strengths and modes is searched on one half of the prompts, passages and
    prose. The cell with the fewest loops at a bearable loss is then measured in full, on the other
    half, against no patch, the controls, repetition penalties, temperatures, top-p, min-p and
    contrasts of layers (DoLa), with what each costs in loss. Only the arms named after a penalty
    have one. Two more questions: how likely is the model to go round once more after a passage was
    said k times, and at which layer does the lens notice repetition?

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
    `ValueError` for an unknown preset.
    """
    return _PLAN.run(model, preset, settings, out=out, executor=executor, progress=progress)
