"""Is the input forgotten and recalled over depth, and is it kept where the output does not look?

This package has the recall experiment's settings, its one stage, analysis and figures. It may
import `engine/`, `design/` and packages below experiments, and no other experiment. The probe and
its readings belong to `fitting/`; a new question goes into `analysis`.
"""

from concurrent.futures import Executor
from pathlib import Path

from ..engine.model_source import Model
from ..engine.presets import Plan, Preset
from ..engine.results import Result
from .analysis import analyse
from .settings import RecallSettings as RecallSettings
from .stages import STAGES, forget_probe

PLAN: Plan[RecallSettings] = Plan(
    "recall",
    lambda preset, _size: RecallSettings.preset(preset),
    lambda _settings, _bridge: STAGES,
    analyse,
    forget=forget_probe,
)


def recall(
    model: Model = None,
    *,
    preset: Preset = "quick",
    settings: RecallSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> Result:
    """Fit an input probe, and measure how much of the input it recovers by depth, and from where.

    A comment on the post says that masked models forget the input token and recall it at the top,
    and asks whether large language models do so too. Another asks whether the input is kept in
    parts of the stream that are not very relevant to the output. Three questions follow. Does the
    output hold more of the input than the point that holds least? Does any stretch of blocks recall
    the input? And is the share of the input in the half of the directions to which the unembedding
    responds least larger than that half's share of the stream? The map is also read in the
    principal components and in a non-negative factorization of the embedding, which needs the extra
    `nmf`.

    **Arguments:**

    - `model`: a bridge; a name or directory for `load_model`, by default the embedded model; or a
        function that returns a bridge. With an executor of other processes, it must not be a
        bridge.
    - `preset`: "quick" or "full"; ignored if `settings` are given.
    - `settings`: settings to use instead of a preset.
    - `out`: the directory of the run. A run that was stopped continues there and ends with the same
        numbers; only the probe is fitted again. Without it, only the result is kept.
    - `executor`: a `concurrent.futures.Executor` for the units of work; by default they run in this
        process. Each process fits the probe.
    - `progress`: show a bar with the time left.

    Raises `RunDirectoryError` for a directory that is in use, damaged or of another run,
    `ValueError` for an unknown preset, and `RuntimeError` if a basis needs a package that is not
    installed.
    """
    return PLAN.run(model, preset, settings, out=out, executor=executor, progress=progress)
