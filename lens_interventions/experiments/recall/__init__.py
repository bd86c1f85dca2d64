"""Is the input forgotten and recalled over depth, and is it kept where the output does not look?

The recall experiment: its settings, its one stage, its analysis and its figures. It may import
`engine/`, `design/` and what stands below experiments, and no other experiment. The probe and what
is read of it belong to `fitting/`, a new question into `analysis`.
"""

from concurrent.futures import Executor
from pathlib import Path

from ..engine.model_source import Model
from ..engine.presets import Plan, Preset
from ..engine.results import Result
from .analysis import analyse
from .settings import RecallSettings as RecallSettings
from .stages import STAGES

_PLAN = Plan(
    "recall",
    lambda preset, _bridge: RecallSettings.preset(preset),
    lambda _settings, _bridge: STAGES,
    analyse,
)


def recall(
    model: Model = None,
    preset: Preset = "quick",
    *,
    settings: RecallSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> Result:
    """Fit an input probe, see how much of the input it recovers by depth, and from where.

    A comment on the post says that masked models forget which token came in and recall it at the
    top, and asks whether large language models do. Another asks whether the input is kept in parts
    of the stream that are not very relevant to the output. Three questions follow. Does the output
    hold more of the input than the point that holds least? Does any stretch of blocks recall? And
    does more of the probe's estimate come through the half of the directions that the unembedding
    responds to least than that half has of the stream? The map is read in the principal components
    and in a non-negative factorization of the embedding too, which needs the extra `nmf`.

    **Arguments:**

    - `model`: a bridge; a name or directory for `load_model`, by default the embedded model; or a
        function that returns a bridge. With processes or a cluster as executor, not a bridge.
    - `preset`: "quick" or "full"; not read where `settings` are given.
    - `settings`: what to measure, in place of a preset.
    - `out`: directory of the run. A run that was stopped goes on there and ends in the same
        numbers; the probe alone is fitted again. Without it nothing is kept but the result.
    - `executor`: any `concurrent.futures.Executor`, which runs the units of work; by default this
        process does. Each process fits the probe.
    - `progress`: show a bar with the time left.

    Raises `RunDirectoryError` for a directory that is in use, damaged or of another run,
    `ValueError` for an unknown preset, and `RuntimeError` if a basis needs a package that is not
    installed.
    """
    return _PLAN.run(model, preset, settings, out=out, executor=executor, progress=progress)
