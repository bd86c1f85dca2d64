"""How must a model be brought up for its middle layers to speak the language of its output?

The upbringing experiment: its settings, the arms, the network that is read at every layer, what is
measured of it, its analysis and its figures. It may import `engine/`, `design/` and what stands
below experiments, and no other experiment. A new arm goes into `arms`, a new read-out into
`evaluation`.
"""

from concurrent.futures import Executor
from pathlib import Path
from typing import get_args

from ..engine.presets import Preset
from ..engine.results import Result
from ..engine.run import Experiment, run
from .analysis import analyse
from .settings import UpbringingSettings as UpbringingSettings
from .stages import STAGES, StartingModel


def upbringing(
    preset: Preset = "quick",
    *,
    settings: UpbringingSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> Result:
    """Train small transformers in six ways, and read every layer through their unembedding.

    The post explains by weight decay and by residual connections that layers share a basis, and a
    comment asks what it would cost if every layer had to give its own best guess. The arms: as
    GPT-2 is trained, with little weight decay; without any; with strong weight decay; with an
    unembedding of its own; myopic, where the stream after each block is read through the final norm
    and the unembedding and the losses are averaged; and the same where no gradient passes from one
    block to the one below, so that no block learns for a later one. All see the same text in the
    same order. On held-out text four questions follow. How far is the middle layer's distribution
    from the output's with and without weight decay, and with one embedding and two? What does
    myopia cost? And how much of the input does a linear map recover under it?

    **Arguments:**

    - `preset`: "quick" or "full"; not read where `settings` are given.
    - `settings`: what to train, in place of a preset.
    - `out`: directory of the run. A run that was stopped goes on there, from the last evaluation of
        the training that it was at, and ends in the same numbers. Without it nothing is kept but
        the result.
    - `executor`: any `concurrent.futures.Executor`, which runs the trainings; by default this
        process does.
    - `progress`: show a bar with the time left.

    Raises `RunDirectoryError` for a directory that is in use, damaged or of another run, and
    `ValueError` for an unknown preset, or too little text.
    """
    chosen = UpbringingSettings.preset(preset) if settings is None else settings
    presets = {name: UpbringingSettings.preset(name) for name in get_args(Preset)}
    experiment = Experiment("upbringing", chosen, STAGES, analyse, presets)
    return run(experiment, StartingModel(chosen), out=out, executor=executor, progress=progress)
