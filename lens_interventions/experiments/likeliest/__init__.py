"""Which continuation does a model find likeliest, which search finds it, and is it a loop?

This package has the likeliest experiment's settings, stages, ways to search for a sequence,
analysis and figures. It may import `engine/`, `design/` and packages below experiments, and no
other experiment. A new way to search for sequences goes into `sequences`.
"""

from concurrent.futures import Executor
from pathlib import Path

from ..engine.model_source import Model
from ..engine.presets import Plan, Preset
from ..engine.results import Result
from .analysis import analyse
from .settings import LikeliestSettings as LikeliestSettings
from .stages import STAGES

PLAN: Plan[LikeliestSettings] = Plan(
    "likeliest",
    lambda preset, _size: LikeliestSettings.preset(preset),
    lambda _settings, _bridge: STAGES,
    analyse,
)


def likeliest(
    model: Model = None,
    *,
    preset: Preset = "quick",
    settings: LikeliestSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> Result:
    """Search for the likeliest continuations of prompts in several ways, at equal cost.

    The ways are gradient ascent through unrolled sampling (`search_sequence`), beam search of
    transformers, the best of many samples, and swaps that begin with the result of greedy or beam
    search. Each takes the same number of model evaluations, counted in forward tokens; a backward
    pass counts two. The ascent's variant is chosen on other prompts. Special tokens are not
    allowed, so all sequences of one length are compared, by their exact log-likelihood. The
    experiment also asks whether the likeliest continuation that any search found ends in a loop,
    and repeats itself, more than a sample does.

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
    `ValueError` for an unknown preset.
    """
    return PLAN.run(model, preset, settings, out=out, executor=executor, progress=progress)
