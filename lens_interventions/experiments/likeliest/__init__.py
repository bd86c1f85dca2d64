"""Which continuation does a model find likeliest, who finds it, and is it a loop?

The likeliest experiment: its settings, its stages, the ways to look for a sequence that are
compared, its analysis and its figures. It may import `engine/`, `design/` and what stands below
experiments, and no other experiment. A new way to look for sequences goes into `sequences`.
"""

from concurrent.futures import Executor
from pathlib import Path

from ..engine.model_source import Model
from ..engine.presets import Plan, Preset
from ..engine.results import Result
from .analysis import analyse
from .settings import LikeliestSettings as LikeliestSettings
from .stages import STAGES

_PLAN = Plan(
    "likeliest",
    lambda preset, _bridge: LikeliestSettings.preset(preset),
    lambda _settings, _bridge: STAGES,
    analyse,
)


def likeliest(
    model: Model = None,
    preset: Preset = "quick",
    *,
    settings: LikeliestSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> Result:
    """Look for the likeliest continuations of prompts in several ways, at one price.

    Gradient ascent through unrolled sampling (`search_sequence`), beam search of transformers, the
    best of many samples, and swaps that begin where greedy or beam search ends, each at the same
    number of model evaluations: forward tokens, a backward pass counting two. The ascent's variant
    is chosen on prompts of its own. Special tokens are not allowed, so all sequences of one length
    are compared, by their exact log-likelihood. Then: does the likeliest continuation that anybody
    found end in a loop, and repeat itself, more than a sample does?

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
