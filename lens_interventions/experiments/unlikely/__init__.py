"""Do middle layers use the directions of tokens that the output rules out for other purposes?

This package has the settings, stages, ablation, analysis and figures of the experiment on unlikely
tokens. It may import `engine/`, `design/` and packages below experiments, and no other experiment.
The measurement of components belongs to `lens/unlikely_tokens`; a new question goes into
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

PLAN: Plan[UnlikelySettings] = Plan(
    "unlikely",
    lambda preset, _size: UnlikelySettings.preset(preset),
    lambda _settings, _bridge: STAGES,
    analyse,
)


def unlikely(
    model: Model = None,
    *,
    preset: Preset = "quick",
    settings: UnlikelySettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> Result:
    """Measure residual components along unlikely tokens, their fate and their effect on the loss.

    A comment on the post supposes that middle layers use the embeddings of tokens that are nearly
    impossible in a context for computation, and that late layers subtract them. Three questions
    follow. Does more of a middle residual lie along them than along random directions with their
    mean and covariance that the output makes just as unlikely? Does less of it arrive at the
    output? And does the loss rise more if the strongest of them are taken out of a middle residual?

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
    `ValueError` for an unknown preset or a model without a tokenizer.
    """
    return PLAN.run(model, preset, settings, out=out, executor=executor, progress=progress)
