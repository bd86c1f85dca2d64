"""How must a model be trained for its middle layers to be readable by its own unembedding?

This package has the upbringing experiment's settings, arms, network that is read at every layer,
measurements, analysis and figures. It may import `engine/`, `design/` and packages below
experiments, and no other experiment. A new arm goes into `arms`, a new read-out into `evaluation`.
"""

from concurrent.futures import Executor
from pathlib import Path
from typing import get_args

from ...model.argument_types import require_instance
from ..engine.presets import Preset
from ..engine.results import Result
from ..engine.run import Experiment, run
from .analysis import analyse
from .settings import UpbringingSettings as UpbringingSettings
from .stages import STAGES, StartingModel


def upbringing(
    *,
    preset: Preset = "quick",
    settings: UpbringingSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> Result:
    """Train small transformers in six ways, and read every layer through their unembedding.

    The post explains the common basis of layers by weight decay and by residual connections, and a
    comment asks what it would cost if every layer had to give its own best guess. The arms are:
    trained like GPT-2, with little weight decay; without weight decay; with strong weight decay;
    with a separate unembedding; myopic, in which the stream after each block is read through the
    final norm and the unembedding and the losses are averaged; and myopic without gradients from
    one block to the one below, so that no block learns for a later one. All arms see the same text
    in the same order. On held-out text, four questions follow. How far is the middle layer's
    distribution from the output's with and without weight decay, and with one or two embedding
    matrices? What does myopia cost? And how much of the input does a linear map recover under it?

    **Arguments:**

    - `preset`: "quick" or "full"; ignored if `settings` are given.
    - `settings`: settings to use instead of a preset.
    - `out`: the directory of the run. A run that was stopped continues there, from the last
        evaluation of its current training, and ends with the same numbers. Without it, only the
        result is kept.
    - `executor`: a `concurrent.futures.Executor` for the trainings; by default they run in this
        process.
    - `progress`: show a bar with the time left.

    Raises `RunDirectoryError` for a directory that is in use, is damaged or belongs to another run;
    `ValueError` for an unknown preset, or too little text; `TypeError` for settings of another
    experiment.
    """
    chosen = UpbringingSettings.preset(preset) if settings is None else settings
    require_instance("settings", chosen, UpbringingSettings)
    presets = {name: UpbringingSettings.preset(name) for name in get_args(Preset)}
    experiment = Experiment("upbringing", chosen, STAGES, analyse, presets)
    return run(experiment, StartingModel(chosen), out=out, executor=executor, progress=progress)
