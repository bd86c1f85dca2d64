"""Does seeing the true token help a model to copy?

This package has the copying experiment's settings, questions, choice of layers by slopes, stages
and their choices, readings of the word that is due, analysis and figures. It may import `engine/`,
`design/` and packages below experiments, and no other experiment. A new question goes into
`questions`; measurements that other experiments share go into `design/`.
"""

from concurrent.futures import Executor
from pathlib import Path

from ..engine.model_source import Model
from ..engine.presets import Plan, Preset
from ..engine.results import Result
from .analysis import analyse
from .settings import CopyingSettings as CopyingSettings
from .stages import STAGES

PLAN: Plan[CopyingSettings] = Plan(
    "copying",
    lambda preset, size: CopyingSettings.preset(preset, size.n_layers),
    lambda _settings, _bridge: STAGES,
    analyse,
    lambda settings, bridge, progress: settings.patch.other_files(
        bridge, settings.forms, progress=progress
    ),
)


def copying(
    model: Model = None,
    *,
    preset: Preset = "quick",
    settings: CopyingSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> Result:
    """Measure copying with a patch of the true next token, and with controls.

    The material is random tokens that are repeated once, sentences that call for a word from
    before, and natural text: copyable tokens, other tokens, tokens after a surprise, and later
    repeats of tokens that were surprising at their first occurrence, for which the patch is at all
    surprising tokens and nowhere else. All of it is teacher-forced and exact. One half of the
    material chooses a cell for each question. Slopes of weak patches choose layers, unless the
    settings name them. At these layers, only the true source is used to shortlist the best cells
    (layer, strength, mode and form of the patch). Of these, the chosen one is the cell at which it
    beats its best control by most. The other half gives the reported numbers. A verdict compares
    the true source with no patch and every control, paired; one of the controls is the unpatched
    model at a temperature fitted on the first half.

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
    `ValueError` for an unknown preset, or settings that leave a half of the material without
    sequences.
    """
    return PLAN.run(model, preset, settings, out=out, executor=executor, progress=progress)
