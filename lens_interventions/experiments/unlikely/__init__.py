"""Are the directions of tokens that the output rules out used for other ends in the middle?

The experiment on unlikely tokens: its settings, its stages, the ablation, its analysis and its
figures. It may import `engine/`, `design/` and what stands below experiments, and no other
experiment. How components are measured belongs to `lens/unlikely_tokens`, a new question into
`analysis`.
"""

from concurrent.futures import Executor
from pathlib import Path

from ..engine.model_source import Model
from ..engine.presets import Plan, Preset
from ..engine.results import Result
from .analysis import analyse
from .settings import UnlikelySettings as UnlikelySettings
from .stages import STAGES

_PLAN = Plan(
    "unlikely",
    lambda preset, _bridge: UnlikelySettings.preset(preset),
    lambda _settings, _bridge: STAGES,
    analyse,
)


def unlikely(
    model: Model = None,
    preset: Preset = "quick",
    *,
    settings: UnlikelySettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> Result:
    """Measure what lies along unlikely tokens, what becomes of it, and what it is good for.

    A comment on the post imagines that embeddings of tokens that are near-impossible in a context
    are used for computation in the middle, and subtracted out at the end. Three questions follow.
    Does more of a middle residual lie along them than along random directions with their mean and
    covariance, which the output makes as unlikely? Does less of it arrive at the output? And does
    the loss rise more if the strongest of them are taken out of a middle residual?

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
    `ValueError` for an unknown preset or a model without a tokenizer.
    """
    return _PLAN.run(model, preset, settings, out=out, executor=executor, progress=progress)
