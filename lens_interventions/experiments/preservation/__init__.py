"""Is a rarer, or more surprising, input token better preserved in later layers?

This package has the preservation experiment's settings, stage, ranks at each residual point, rank
correlations, analysis and figures. It may import `engine/`, `design/` and packages below
experiments, and no other experiment. A new reading of each token goes into `lens_ranks`, a new
question into `analysis`.
"""

from concurrent.futures import Executor
from pathlib import Path

from ..engine.model_source import Model
from ..engine.presets import Plan, Preset
from ..engine.results import Result
from .analysis import analyse
from .settings import PreservationSettings as PreservationSettings
from .stages import STAGES

PLAN: Plan[PreservationSettings] = Plan(
    "preservation",
    lambda preset, _size: PreservationSettings.preset(preset),
    lambda _settings, _bridge: STAGES,
    analyse,
)


def preservation(
    model: Model = None,
    *,
    preset: Preset = "quick",
    settings: PreservationSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> Result:
    """Measure how each layer ranks the input token, by its rarity, surprise and copying.

    It asks three questions of the post's addendum. Does the rank that later points give the token
    at their own position correlate with its unigram surprisal, and with its surprisal in context,
    with the other held fixed? Is the correlation more than that of the token's rank at positions
    where it is not the input? And is a word that is better preserved at its first occurrence also
    copied better when it is due again?

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
    `ValueError` for an unknown preset, or a tokenizer that spells no word of the templates alike in
    both places.
    """
    return PLAN.run(model, preset, settings, out=out, executor=executor, progress=progress)
