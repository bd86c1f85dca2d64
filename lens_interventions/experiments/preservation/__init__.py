"""Is a rarer, or more surprising, input token better preserved in later layers?

The preservation experiment: its settings, its stage, the ranks that each residual point gives,
rank correlations, its analysis and its figures. It may import `engine/`, `design/` and what stands
below experiments, and no other experiment. What is read of each token goes into `lens_ranks`, a new
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

_PLAN = Plan(
    "preservation",
    lambda preset, _bridge: PreservationSettings.preset(preset),
    lambda _settings, _bridge: STAGES,
    analyse,
)


def preservation(
    model: Model = None,
    preset: Preset = "quick",
    *,
    settings: PreservationSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> Result:
    """Measure how each layer ranks the input token, against its rarity, surprise and copying.

    It asks three questions of the post's addendum. Does the rank that later points give the token
    at their own position go with its unigram surprisal, and with its surprisal in context, each
    with the other held fixed? Is that more than how high the lens ranks the token at positions
    where it is not the input? And is a word that is better preserved where it stands first better
    copied where it is due again?

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
    `ValueError` for an unknown preset, and for a tokenizer that spells no word of the templates
    alike in both places.
    """
    return _PLAN.run(model, preset, settings, out=out, executor=executor, progress=progress)
